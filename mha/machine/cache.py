"""Cache of prepared data and compiled programs: the directory $MHA_CACHE, by default ~/.cache/mha. It may be deleted at
any time. $JAX_COMPILATION_CACHE_DIR may name another directory for the programs."""

import contextlib
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax

from mha.spec import UserError

T = TypeVar('T')


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
def reading(what: Any, mend: str) -> Iterator[None]:
    """Context that reads prepared data. Raises `UserError`, which tells how to `mend` them, if they are damaged."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # the readers have no class of their own for damage
        raise UserError(f'cannot read {what}: it is damaged ({str(error)[:200]}) - {mend}') from error


def kept(path: Path, make: Callable[[], None], read: Callable[[], T]) -> T:
    """What `read` finds in a file or directory of the cache, which `make` makes if it is not there. If it is damaged, a
    line says so, and it is made again. Several processes may do this at the same time."""
    if not path.exists():
        with writing():
            make()
    inode = path.stat().st_ino
    try:
        with reading(path, 'it is made again'):
            return read()
    except UserError as error:
        if not isinstance(error.__cause__, Exception):  # no damage
            raise
        print(f'note: {error}', file=sys.stderr)
    with writing():
        if path.exists() and path.stat().st_ino == inode:  # otherwise another process has made it again
            aside = Path(tempfile.mkdtemp(dir=directory(), prefix='damaged-'))
            os.rename(path, aside / path.name)
            shutil.rmtree(aside)
        if not path.exists():
            make()
    with reading(path, 'remove it, and it is made again'):
        return read()


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
    warnings.showwarning = _replacing(Path(programs), warnings.showwarning)


def _replacing(programs: Path, show: Callable[..., None]) -> Callable[..., None]:
    """Function that shows warnings, but instead of those about damaged programs, removes them and prints one line. jax
    compiles them again, but replaces no file: one that a killed process has half written would stay for ever."""
    told = False

    def shown(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        nonlocal told
        damaged = re.match(r"Error reading persistent compilation cache entry for '(\w+)'", str(message))
        if not damaged:
            return show(message, *args, **kwargs)
        for path in programs.glob(f'{damaged[1]}-*'):
            path.unlink(missing_ok=True)
        if not told:
            print(f'note: some programs in {programs} are damaged; they are compiled again', file=sys.stderr)
        told = True

    return shown
