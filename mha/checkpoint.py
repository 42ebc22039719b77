"""Checkpoints of the whole training state, written by orbax while training goes on."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


class Checkpoints:
    """The last two states of a run, under `<workdir>/checkpoints`. A save cut short by a crash is ignored."""

    def __init__(self, workdir: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        self.manager = ocp.CheckpointManager((workdir / 'checkpoints').absolute(), options=options)

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint."""
        return self.manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Starts writing; `state` may be donated as soon as this returns."""
        self.manager.save(step, args=ocp.args.StandardSave(jax.tree.map(np.array, state)))

    def restore(self, like: Any) -> Any:
        """The newest state, shaped like `like`."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self.manager.restore(self.latest(), args=ocp.args.StandardRestore(abstract))

    def close(self) -> None:
        """Waits for what is being written."""
        self.manager.close()
