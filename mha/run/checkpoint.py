"""Checkpoints of the whole training state, written by orbax while training goes on: by all processes of a run, each its
own devices' part, into one directory that all of them see."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from mha.spec import UserError


class Checkpoints:
    """The last two states of a run, under `<workdir>/checkpoints`. A save cut short by a crash is ignored. Every
    process makes the same calls; those that read a run may be fewer or more than wrote it, with other devices."""

    def __init__(self, workdir: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        self.manager = ocp.CheckpointManager((workdir / 'checkpoints').absolute(), options=options)

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint."""
        return self.manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Starts writing; `state` may be donated as soon as this returns: orbax waits until it is in host memory."""
        self.manager.save(step, args=ocp.args.StandardSave(state))

    def restore(self, like: Any) -> Any:
        """The newest state, with the shapes and on the devices of `like`, arrays or `jax.ShapeDtypeStruct`s. Raises
        `UserError` where it cannot be read."""
        abstract, step = jax.tree.map(ocp.utils.to_shape_dtype_struct, like), self.latest()
        try:
            return self.manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except Exception as error:  # orbax has no exception of its own, and raises bare ones
            reason = ' '.join(str(error).split())[:200]
            raise UserError(
                f'cannot read {self.manager.directory / str(step)} ({reason}) - if it is damaged, remove it: the run '
                'resumes from the one before'
            ) from error

    def close(self) -> None:
        """Waits for what is being written."""
        self.manager.close()
