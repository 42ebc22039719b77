"""Cache of prepared data and compiled programs: the directory $MHA_CACHE, by default ~/.cache/mha. It may be deleted at
any time."""

import os
from pathlib import Path

import jax


def directory() -> Path:
    """Path of the cache."""
    return Path(os.environ.get('MHA_CACHE') or '~/.cache/mha').expanduser()


def keep_programs() -> None:
    """Makes jax keep compiled programs in the cache, so that the next run of a config, or another seed, starts
    sooner."""
    jax.config.update('jax_compilation_cache_dir', str(directory() / 'programs'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)  # a run starts with dozens of small programs
