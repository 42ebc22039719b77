"""Cache of prepared data and compiled programs: the directory $MHA_CACHE, by default ~/.cache/mha. It may be deleted at
any time. $JAX_COMPILATION_CACHE_DIR may name another directory for the programs."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from mha.spec import UserError


def directory() -> Path:
    """Path of the cache."""
    return Path(os.environ.get('MHA_CACHE') or '~/.cache/mha').expanduser()


@contextlib.contextmanager
def writing(variable: str = 'MHA_CACHE') -> Iterator[None]:
    """Context that writes to the directory that `variable` names. Raises `UserError` if that is not possible."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        place = os.environ.get(variable) or directory()
        raise UserError(f'cannot write to {place}: {reason} - set {variable} to a directory') from error


@contextlib.contextmanager
def reading(what: Any, mend: str = 'remove it, and it is made again') -> Iterator[None]:
    """Context that reads a prepared file or data set. Raises `UserError` if it is damaged."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # the readers have no class of their own for damage
        raise UserError(f'cannot read {what}: it is damaged ({str(error)[:200]}) - {mend}') from error


def keep_programs() -> None:
    """Makes jax keep compiled programs in the cache, so that the next run of a config, or another seed, starts sooner.
    Raises `UserError` if the environment names a directory that cannot be written."""
    given = os.environ.get('JAX_COMPILATION_CACHE_DIR')
    programs = given or str(directory() / 'programs')
    if (given or os.environ.get('MHA_CACHE')) and '://' not in programs:
        with writing('JAX_COMPILATION_CACHE_DIR' if given else 'MHA_CACHE'):
            Path(programs).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=programs).close()
    jax.config.update('jax_compilation_cache_dir', programs)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)  # a run starts with dozens of small programs
