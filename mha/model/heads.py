"""Heads of a model: its attention layers, and models without some of their heads (Michel et al., 2019,
arXiv:1905.10650).

    '0:1,3; 2:0'                  heads 1 and 3 of layer 0 and head 0 of layer 2, counted from 0
    'decoder.0:1; cross.0:2'      those of a decoder, and of its attention to the encoder

Heads may have gates that learn to close, under a penalty on the expected number of open ones (Voita et al., 2019,
arXiv:1905.09418).
"""

import itertools
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mha.arguments import checked
from mha.model.attention import MultiHeadAttention
from mha.model.seq2seq import EncoderDecoder, Model
from mha.nn import gates
from mha.spec import UserError, choose

STACKS = 'encoder', 'decoder', 'cross'


class Layer(NamedTuple):
    """Attention layer of a model, with its place."""

    stack: str
    """'encoder', or 'decoder' and 'cross' for the two attentions of a decoder."""
    number: int
    attention: MultiHeadAttention


class Head(NamedTuple):
    """Place of a head, counted from 0."""

    stack: str
    layer: int
    number: int


@checked
def layers(model: Model) -> list[Layer]:
    """Attention layers of a model: those of the encoder, then those of the decoder, then those from decoder to
    encoder."""
    found = [
        Layer(name, number, block.attention)
        for name, stack in zip(STACKS, model.stacks, strict=False)
        for number, block in enumerate(stack.blocks)
    ]
    if isinstance(model, EncoderDecoder):
        blocks: Any = model.decoder.blocks
        found += [Layer('cross', number, block.cross.attention) for number, block in enumerate(blocks)]
    return found


def parse(text: str) -> set[Head]:
    """Heads that a text names. Raises `UserError`."""
    found: set[Head] = set()
    for part in filter(None, (part.strip() for part in text.split(';'))):
        match = re.fullmatch(r'(?:(\w+)\.)?([0-9]{1,6}) ?: ?([0-9]{1,6}(?: ?, ?[0-9]{1,6})*)', part)
        if match is None:
            raise UserError(f"cannot read {part!r} - write layer:heads, such as '0:1,3;2:0' or 'decoder.0:1'")
        stack = choose(match[1] or 'encoder', STACKS, 'stack of layers')
        found |= {Head(stack, int(match[2]), int(number)) for number in match[3].split(',')}
    return found


def written(heads: Iterable[Head]) -> str:
    """Text that names these heads, in order."""
    ordered = sorted(heads, key=lambda head: (STACKS.index(head.stack), *head[1:]))
    parts = []
    for (stack, layer), group in itertools.groupby(ordered, key=lambda head: head[:2]):
        name = '' if stack == 'encoder' else f'{stack}.'
        parts.append(f'{name}{layer}:{",".join(str(head.number) for head in group)}')
    return ';'.join(parts)


def prune(model: Model, removed: Iterable[Head]) -> Model:
    """The model, now without these heads. Their numbers, and those of the others, are those of the model as it was
    made. Raises `UserError` for heads that it never had."""
    removed, places = set(removed), {(layer.stack, layer.number): layer.attention for layer in layers(model)}
    for stack, layer, number in removed:
        if (stack, layer) not in places:
            raise UserError(f'no layer {stack}.{layer} - choose from {", ".join(f"{s}.{n}" for s, n in places)}')
        if number >= (count := places[stack, layer].dims.heads):
            raise UserError(f'layer {stack}.{layer} has heads 0 to {count - 1}, not {number}')
    for place in {head[:2] for head in removed}:
        attention = places[place]
        attention.keep(head for head in attention.kept if (*place, head) not in removed)
    return model


def add_gates(model: Model) -> Model:
    """The model, now with a gate on every head. All are open: without draws, the outputs do not change."""
    for _, _, attention in layers(model):
        if attention.num_heads and attention.head_gates is None:
            attention.head_gates = nnx.data(nnx.Param(jnp.full(attention.num_heads, gates.OPEN)))
    return model


def fold_gates(model: Model) -> Model:
    """The model, now with output projections in the place of gates, and the same outputs."""
    for _, _, attention in layers(model):
        if attention.head_gates is not None:
            kernel = attention.out.kernel
            kernel[...] = kernel[...] * gates.gate(attention.head_gates[...])[:, None, None]
            attention.head_gates = nnx.data(None)
    return model


def expected_open(params: Any) -> Float[Array, '']:
    """Expected number of heads with an open gate, given the parameters of a model, a pure dict."""
    named = ((path[-1].key, leaf) for path, leaf in jax.tree.leaves_with_path(params))
    return jnp.float32(0) + sum(gates.chance_open(leaf).sum() for name, leaf in named if name == 'head_gates')


def closed(model: Model) -> set[Head]:
    """Heads whose gate is closed."""
    found: set[Head] = set()
    for stack, layer, attention in layers(model):
        if attention.head_gates is not None:
            opened = gates.gate(attention.head_gates[...]).tolist()
            found |= {Head(stack, layer, head) for head, z in zip(attention.kept, opened, strict=True) if z == 0}
    return found
