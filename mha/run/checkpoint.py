"""Checkpoints of the whole training state. Orbax writes them in the background while training continues. Each process
of a run writes the arrays on its own devices, into one directory that all processes share."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from mha.spec import UserError


class Checkpoints:
    """Last two states of a run, under `<workdir>/checkpoints`. A save that a crash interrupted is ignored. Every
    process must make the same calls. The processes and devices that read a checkpoint may differ from those that wrote
    it."""

    def __init__(self, workdir: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        self.manager = ocp.CheckpointManager((workdir / 'checkpoints').absolute(), options=options)

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint; None if there is none."""
        return self.manager.latest_step()

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints."""
        return sorted(self.manager.all_steps())

    def save(self, step: int, state: Any) -> None:
        """Starts writing `state`, which may be donated as soon as this returns: orbax has copied it to host memory by
        then."""
        self.manager.save(step, args=ocp.args.StandardSave(state))

    def restore(self, like: Any, step: int | None = None) -> Any:
        """State of a step, by default the newest, with the shapes and on the devices of `like`, a tree of arrays or
        `jax.ShapeDtypeStruct`s. Raises `UserError` if the checkpoint cannot be read."""
        abstract, step = jax.tree.map(ocp.utils.to_shape_dtype_struct, like), self.latest() if step is None else step
        try:
            return self.manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except Exception as error:  # orbax has no exception class to catch: it raises bare exceptions
            reason = ' '.join(str(error).split())[:200]
            raise UserError(
                f'cannot read {self.manager.directory / str(step)} ({reason}) - if it is damaged, remove it: the run '
                'resumes from the previous one'
            ) from error

    def close(self) -> None:
        """Waits until all checkpoints are written."""
        self.manager.close()
