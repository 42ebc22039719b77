"""Translation of a pretrained model: settings of `mha.Encoder` that compute the same function, and its parameters."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Translation:
    """Checkpoint as a model of ours."""

    settings: Mapping[str, Any]
    """Arguments of `mha.Encoder` that are not those of common.py."""
    params: Mapping[str, np.ndarray]
    """Parameters by their path, such as `'blocks.0.attention.query.kernel'`."""
    trained_length: int
    """Longest sequence that the model was trained on, in tokens."""
    position: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Arguments that position schemes take from the checkpoint unless a spec has others."""


def under(path: str, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters of a part of the model at `path`."""
    return {f'{path}.{name}': array for name, array in params.items()}
