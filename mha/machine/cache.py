"""What is made once and kept: prepared data and compiled programs, in $MHA_CACHE (default ~/.cache/mha). It may be
deleted at any time."""

import os
from pathlib import Path

import jax


def directory() -> Path:
    """Where it is."""
    return Path(os.environ.get('MHA_CACHE') or '~/.cache/mha').expanduser()


def keep_programs() -> None:
    """Keeps compiled programs from now on: the next run of a config, or another seed of it, starts sooner."""
    jax.config.update('jax_compilation_cache_dir', str(directory() / 'programs'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)  # a start compiles dozens of small ones
