"""Checkpoints of the whole training state. Orbax writes them in the background while training continues. Each process
of a run writes the arrays on its own devices, into one directory that all processes share.

A checkpoint `<step>/default` comes with the CRC-32 of each whole array, in a JSON file `<step>/checksums/metadata`:
what was changed on the disk can often be read without an error."""

import contextlib
import functools
import json
import logging
import os
import shutil
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from mha.machine import files, parallel
from mha.spec import UserError

ARRAYS, CHECKSUMS = 'default', 'checksums'
"""Folders of a checkpoint."""


class Checkpoints:
    """Last two states of a run, under `<workdir>/checkpoints`. A save that a crash interrupted is ignored. Every
    process must make the same calls. The processes and devices that read a checkpoint may differ from those that wrote
    it."""

    def __init__(self, workdir: Path):
        self.directory = (workdir / 'checkpoints').absolute()
        self.damaged: list[int] = []

    @functools.cached_property
    def manager(self) -> ocp.CheckpointManager:
        """Writer of checkpoints. Made late, because files of damaged checkpoints may break it."""
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        handlers = {ARRAYS: ocp.StandardCheckpointHandler(), CHECKSUMS: ocp.JsonCheckpointHandler()}
        return ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint; None if there is none."""
        return max(self.steps(), default=None)

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints."""
        return sorted(int(path.name) for path in self.directory.glob('*') if path.name.isdecimal())

    def save(self, step: int, state: Any) -> None:
        """Starts writing `state`, which may be donated as soon as this returns: orbax has copied it to host memory by
        then. Raises `UserError` if this checkpoint or the one before cannot be written."""
        with self._writing():
            parallel.once(self._set_aside)
            arrays, sums = ocp.args.StandardSave(state), ocp.args.JsonSave(checksums(state))
            self.manager.save(step, args=ocp.args.Composite(**{ARRAYS: arrays, CHECKSUMS: sums}))

    def restore(self, like: Any, step: int | None = None) -> Any:
        """State of a step, by default the newest that is not damaged, with the shapes and on the devices of `like`, a
        tree of arrays or `jax.ShapeDtypeStruct`s. A line on stderr names those that are damaged. Raises `UserError` if
        no checkpoint can be read."""
        reasons = {}
        for each in sorted(self.steps(), reverse=True) if step is None else [step]:
            state, reason = self._read(each, like)
            if reason is None:
                for damaged, why in reasons.items() if parallel.first() else ():
                    print(
                        f'note: {self.directory / str(damaged)} is damaged ({why}); step {each} is used',
                        file=sys.stderr,
                    )
                return state
            reasons[each] = reason
            self.damaged.append(each)
        broken = '; '.join(f'{self.directory / str(each)} ({why})' for each, why in reasons.items())
        raise UserError(f'cannot read {broken} - without its checkpoints, a run starts again from step 0')

    def _read(self, step: int, like: Any) -> tuple[Any, str | None]:
        """State of a step, or the reason why it is damaged."""
        abstract, state, saved, reason = jax.tree.map(ocp.utils.to_shape_dtype_struct, like), None, {}, None
        path = self.directory / str(step)
        try:
            file = path / CHECKSUMS / 'metadata'
            saved = json.loads(file.read_text()) if file.exists() else {}  # earlier versions had none
            with ocp.StandardCheckpointer() as reader:
                state = reader.restore(path / ARRAYS, abstract)
        except Exception as error:  # orbax has no exception class to catch: it raises bare exceptions
            if 'RESOURCE_EXHAUSTED' in str(error) or isinstance(error, MemoryError):
                raise
            reason = ' '.join(str(error).split())[:200] or repr(error)
        if jax.process_count() > 1 and multihost_utils.process_allgather(np.array(reason is not None)).any():
            return None, reason or 'another process cannot read it'
        if reason is None and saved:
            found = checksums(state)
            reason = next(
                (f'{name} differs from its checksum' for name in found if found[name] != saved.get(name)), None
            )
        return state, reason

    def _set_aside(self) -> None:
        """Renames damaged checkpoints, because their steps are saved again."""
        while self.damaged:
            step = self.damaged.pop()
            aside = self.directory / f'damaged-{step}'
            shutil.rmtree(aside, ignore_errors=True)
            (self.directory / str(step)).rename(aside)

    def clean(self) -> None:
        """Removes what interrupted saves left. Only for the process that writes the checkpoints."""
        for _ in range(20):  # threads of a save that has failed may still write
            for path in self.directory.glob('*tmp*'):
                shutil.rmtree(path, ignore_errors=True)
            if not any(self.directory.glob('*tmp*')):
                break
            time.sleep(0.05)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of any kind, as in `_read`; it may be that of an earlier save
            if parallel.first():
                self.clean()
            text = ' '.join(str(error).split())
            reason = next((each for each in map(os.strerror, files.FULL) if each in text), text[-200:])
            raise UserError(
                f'cannot write to {self.directory} ({reason}) - make room for it, then the same command resumes'
            ) from error

    def close(self) -> None:
        """Waits until all checkpoints are written. Raises `UserError` if one cannot be written."""
        if 'manager' in vars(self):
            with self._writing():
                self.manager.close()


def checksums(tree: Any) -> dict[str, int]:
    """CRC-32 of each array of a tree, the same on any devices and processes."""
    leaves = {jax.tree_util.keystr(path): _on_host(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}
    with ThreadPoolExecutor() as pool:  # which computes them without the lock of the interpreter
        return dict(zip(leaves, pool.map(_crc32, leaves.values()), strict=True))


def _on_host(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def _crc32(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)


def silence() -> None:
    """Keeps orbax, and what it is made of, from logging what it does and the tracebacks of errors, which it raises. For
    scripts."""
    for name in 'absl', 'asyncio':
        logging.getLogger(name).setLevel(logging.CRITICAL)
    before = sys.unraisablehook
    sys.unraisablehook = lambda raised: None if 'Event loop is closed' in str(raised.exc_value) else before(raised)
