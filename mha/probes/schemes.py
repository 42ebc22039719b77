"""Encodings of a trained model: what its position schemes add, where, and how that differs beyond the trained length.

Every scheme is shown by the logits that it gives to tokens of equal content, whatever hooks it uses. Added embeddings,
biases, coordinates and frequencies are shown as they are, biases also as they were before training.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mha.arguments import Seed, checked
from mha.cores import dense
from mha.model.stack import Stack
from mha.positions import Chain
from mha.positions.base import Coords, Dims, Position
from mha.run.finished import Finished
from mha.spec import lengths as parse_lengths
from mha.training.step import Purpose


@dataclasses.dataclass(frozen=True)
class Encoding:
    """Position scheme of some layers of a trained model, on P positions. Arrays are None where it has no such part."""

    stack: str
    """'encoder' or 'decoder'."""
    layers: tuple[int, ...]
    scheme: str
    """Spec of the scheme."""
    trained: int
    """Longest trained sequence, in tokens."""
    coordinates: Float[np.ndarray, 'P']
    """Coordinates of the slots."""
    embedding: Float[np.ndarray, 'P D'] | None
    """Vectors that are added to the embeddings of tokens."""
    similarity: Float[np.ndarray, 'P P'] | None
    """Cosine similarity between the added embeddings of two positions."""
    bias: Float[np.ndarray, 'H P'] | None
    """Bias of the last query for keys at offsets 0, 1, .. P - 1."""
    initial_bias: Float[np.ndarray, 'H P'] | None
    """The same before training."""
    logits: Float[np.ndarray, 'H P'] | None
    """Logits of the last query for keys at offsets 0, 1, .. P - 1, if all tokens have the same content, whose product
    is 1; None for a scheme that replaces the softmax alone."""
    wavelengths: Float[np.ndarray, 'F'] | None
    """Positions per turn of each frequency of rotary or sinusoidal schemes; infinite for channels that do not turn."""


@checked
def encodings(run: Finished, length: int | None = None, seed: Seed = 0) -> list[Encoding]:
    """Encodings of all position schemes of a run for sequences of `length`, by default the longest evaluated length.
    Random draws depend on `seed`."""
    task, experiment = run.task, run.experiment
    length = experiment.eval_lengths[-1] if length is None else parse_lengths(str(length), 'length')[-1]
    key = experiment.keys(Purpose.WEIGHTS)[run.member]
    fresh = experiment.model(experiment.final_position, key)
    trained, tokens = (run.model.context(task.num_tokens(n)) for n in (experiment.train_lengths[-1], length))
    return [
        _encoding(name, stack, index, first, trained, tokens, jax.random.key(seed))
        for name, stack, begun in zip(('encoder', 'decoder'), run.model.stacks, fresh.stacks, strict=False)
        for index, first in enumerate(begun.positions)
    ]


def _encoding(name: str, stack: Stack, index: int, first: Position, trained: int, tokens: int, key: Any) -> Encoding:
    settings, scheme = stack.settings, stack.positions[index]
    dims = Dims(settings.dim, settings.heads, settings.head_dim, tokens, stack.causal)
    *parts, pos = _parts(scheme, dims, key)
    bias, logits, embedding = (None if x is None else np.asarray(x) for x in parts)
    return Encoding(
        stack=name,
        layers=tuple(layer for layer, owner in enumerate(stack.scheme_of_layer) if owner == index),
        scheme=scheme.name,
        trained=trained,
        coordinates=np.asarray(pos),
        embedding=embedding,
        similarity=None if embedding is None else _cosine(embedding),
        bias=bias,
        initial_bias=None if bias is None else np.asarray(_parts(first, dims, key)[0]),
        logits=logits,
        wavelengths=_wavelengths(scheme),
    )


def _parts(scheme: Position, dims: Dims, key: Any) -> tuple[Array | None, Array | None, Array | None, Array]:
    """Bias [H, P], logits [H, P], embedding [P, D] and coordinates [P] of a scheme."""
    slots = jnp.arange(dims.max_len)[None]
    scheme, pos = scheme.place(slots, key=key)
    x = jnp.zeros((1, dims.max_len, dims.dim))
    embedding = scheme.embed(x, pos)[0] if scheme.overrides('embed') else None
    last = pos[:, -1:]
    bias = scheme.bias(last, pos) if scheme.overrides('bias') else None
    logits = None
    if any(map(scheme.overrides, ('qk', 'bias', 'content'))):
        content = jnp.ones((1, dims.max_len, dims.heads, dims.head_dim)) * dims.head_dim**-0.25
        coords = Coords(q_pos=pos, k_pos=pos, visible=slots + 1, x=x)
        q, k = scheme.qk(content, content, coords)
        at = dataclasses.replace(coords, q_pos=last, visible=coords.visible[:, -1:], x=x[:, -1:])
        logits = dense.logits(q[:, -1:], k, position=scheme, coords=at, scale=dims.head_dim**-0.5)
    bias, logits = (None if x is None else x[0, :, 0, ::-1] for x in (bias, logits))
    return bias, logits, embedding, pos[0].astype(jnp.float32)


def _cosine(x: Float[np.ndarray, 'P D']) -> Float[np.ndarray, 'P P']:
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return x @ x.T


def _wavelengths(scheme: Position) -> Float[np.ndarray, 'F'] | None:
    parts = scheme.parts if isinstance(scheme, Chain) else [scheme]
    found = [np.asarray(part.frequencies) for part in parts if getattr(part, 'frequencies', ())]  # pyright: ignore
    with np.errstate(divide='ignore'):
        return 2 * np.pi / np.concatenate(found) if found else None
