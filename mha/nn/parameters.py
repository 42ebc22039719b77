"""Parameters of layers that can lose heads."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx


def keep_rows(layer: Any, name: str, rows: Sequence[int], axis: int) -> None:
    """Keeps these rows of a parameter, if there is one: None instead of an empty array, which checkpoints refuse."""
    if (param := getattr(layer, name)) is not None:
        kept = nnx.Param(jnp.take(param[...], np.array(rows), axis)) if rows else None
        setattr(layer, name, nnx.data(kept))
