"""Position schemes, one file each; a scheme's name is its file's name.

`make('randomize(max_position=2048)|rope', dims, rngs=rngs)` builds a scheme from its spec. `|` composes: remaps, embeds
and qk transforms apply left to right, biases add, at most one scheme may replace the products or the softmax.
"""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mha import arguments, spec
from mha.nn.prng import fold_in
from mha.positions.base import HOOKS, Coords, Dims, OffsetBias, Position

__all__ = [
    'HOOKS',
    'Chain',
    'Coords',
    'Dims',
    'OffsetBias',
    'Position',
    'example',
    'make',
    'make_across',
    'names',
    'of_heads',
]


def names() -> tuple[str, ...]:
    """Names of all schemes: those of the files beside this one."""
    return spec.names(sys.modules[__name__])


def example(name: str) -> str:
    """Shortest spec that builds a scheme: its name, with arguments if any are required."""
    arguments = spec.load(sys.modules[__name__], name, Position, 'position scheme').example
    return f'{name}({arguments})' if arguments else name


@arguments.checked
def make(text: str, dims: Dims, *, rngs: nnx.Rngs) -> Position:
    """Position scheme that a spec describes. Raises a one-line `ValueError` for a wrong name or argument, or for a
    scheme that cannot represent `dims.max_len` tokens."""
    calls = spec.parse(text)
    scheme = _chain(calls, dims, rngs)
    scheme.dims = dims
    return scheme


@arguments.checked
def make_across(text: str, dims: Dims, *, rngs: nnx.Rngs) -> Position:
    """Position scheme of a spec for attention from one sequence to another, such as that of a decoder to its source.
    The coordinates of both count from 0, so that offsets say how far a pair of tokens is from the diagonal. Refuses
    schemes that need a single sequence: those that act on its coordinates or embeddings before the first layer, are
    causal, sum over its tokens, or depend on its length."""
    for call in spec.parse(text):
        if spec.load(sys.modules[__name__], call.name, Position, 'position scheme').causal_only:
            _refuse_across(call.name)
    scheme = make(text, dims, rngs=rngs)
    for part in scheme.parts if isinstance(scheme, Chain) else [scheme]:
        places = type(part).place is not Position.place
        if places or not part.cacheable or part.whole_rows or any(map(part.overrides, ('remap', 'embed'))):
            _refuse_across(part.name)
    return scheme


def _refuse_across(name: str) -> None:
    raise spec.UserError(
        f'position scheme {name!r} is for a single sequence, not between a target and its source - choose none, or a '
        'scheme of offsets such as rope, alibi or t5'
    )


def _chain(calls, dims, rngs):
    """Scheme composed of parsed `calls`, from left to right."""
    text = '|'.join(str(call) for call in calls)
    parts: list[Position] = []
    for index, call in enumerate(calls):
        kind = spec.load(sys.modules[__name__], call.name, Position, 'position scheme')
        if kind.causal_only and not dims.causal:
            raise spec.UserError(
                f'position scheme {call.name!r} is defined for causal attention only - set model.causal=True'
            )
        if kind.first_only and any(earlier.overrides('remap') for earlier in parts):
            raise spec.UserError(f'position {text!r}: {call.name!r} takes slot numbers, write it before other remaps')
        extra = {}
        if kind.wraps:
            extra['inner'] = _chain(calls[index + 1 :], dims, rngs) if calls[index + 1 :] else Position(dims, rngs=rngs)
        part = arguments.build(kind, call, 'position scheme', dims, rngs=rngs, **extra)
        _refuse_arrays(part, call.name)
        parts.append(part)
        if part.overrides('remap'):  # later parts see the new coordinates: a learned table must cover their range
            dims = dataclasses.replace(dims, max_len=checked_extent(part, dims.max_len, str(call)))
        if kind.wraps:
            break
    for part, call in zip(parts, calls, strict=False):
        if not part.overrides('remap'):
            checked_extent(part, dims.max_len, str(call))
    return parts[0] if len(parts) == 1 else Chain(parts, text)


def _refuse_arrays(part: Position, name: str) -> None:
    """Refuses a scheme that keeps arrays as attributes. A model splits into parameters and values known at trace time,
    and such an array would be neither."""
    for attribute, value in vars(part).items():
        if isinstance(value, nnx.Param | nnx.Module):
            continue
        if any(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(value)):
            raise spec.UserError(
                f'position scheme {name!r} keeps an array in {attribute!r} - write constants as numbers or tuples of '
                'them, what is learned as nnx.Param'
            )


def checked_extent(part: Position, length: int, name: str) -> int:
    """`part.extent(length)`, with its `ValueError` turned into a `UserError` that names the scheme."""
    try:
        return part.extent(length)
    except ValueError as error:
        raise spec.UserError(f'position scheme {name!r}: {error}') from error


def check_shapes(scheme: Position, dims: Dims) -> None:
    """Raises a `UserError` that names scheme and hook, if the output of a hook does not have the shape of the protocol.
    Hooks are traced part by part without computing them."""
    if isinstance(scheme, Chain):
        for part in scheme.parts:
            check_shapes(part, dims)
        return
    if scheme.wraps:
        check_shapes(scheme.inner, dims)  # pyright: ignore[reportAttributeAccessIssue] - wrappers have it
    batch, tokens, heads, width = 2, 3, dims.heads, dims.head_dim
    graphdef, params = nnx.split(scheme)
    expected = {  # None: any size
        'embed': [(batch, tokens, dims.dim)],
        'qk': [(batch, tokens, heads, None)] * 2,
        'product': [(batch, heads, tokens, tokens)],
        'bias': [(None, heads, tokens, tokens)],
        'content': [(batch, heads, tokens, tokens)],
        'rows': [(batch, heads, tokens, tokens)],
        'weights': [(batch, heads, tokens, tokens)],
        'values': [(batch, tokens, heads, None)],
    }

    def outputs(params):
        scheme = nnx.merge(graphdef, params)
        pos, x, q = (
            jnp.arange(tokens)[None],
            jnp.zeros((batch, tokens, dims.dim)),
            jnp.zeros((batch, tokens, heads, width)),
        )
        coords, logits = Coords(q_pos=pos, k_pos=pos, visible=pos + 1, x=x), jnp.zeros((batch, heads, tokens, tokens))
        turned = scheme.qk(q, q, coords)
        inputs = {
            'embed': (x, pos),
            'qk': (q, q, coords),
            'product': (*turned, coords),
            'bias': (pos, pos),
            'content': (*turned, pos, pos),
            'rows': (logits, jnp.ones((1, 1, tokens, tokens), bool), q, coords),
            'weights': (logits, jnp.ones((1, 1, tokens, tokens), bool), q, coords),
            'values': (logits, pos, pos),
        }
        # Hooks of a scheme that overrides `place` need its random draws. A wrapper's inner scheme is checked above, so
        # that only a `place` of its own class counts.
        places = type(scheme).place is not Position.place
        hooks = [hook for hook in inputs if scheme.overrides(hook) and not places]
        return {hook: getattr(scheme, hook)(*inputs[hook]) for hook in hooks}

    for hook, output in jax.eval_shape(outputs, params).items():
        for leaf, right in zip(jax.tree.leaves(output), expected[hook], strict=False):
            if len(leaf.shape) != len(right) or any(n not in (None, m) for n, m in zip(right, leaf.shape, strict=True)):
                name = type(scheme).__module__.rpartition('.')[2]
                shown = ', '.join('any' if n is None else str(n) for n in right)
                raise spec.UserError(
                    f'position scheme {name!r}: {hook} gives the shape {leaf.shape} where it must be ({shown}), for '
                    f'{batch} sequences of {tokens} tokens, {heads} heads of {width} and width {dims.dim}'
                )


class Chain(Position):
    """Schemes composed with `|`."""

    def __init__(self, parts: list[Position], text: str):
        self.parts = nnx.List(parts)
        self.text = text
        for claim in ('directed', 'per_example', 'per_layer'):
            setattr(self, claim, any(getattr(part, claim) for part in parts))
        self.cacheable = all(part.cacheable for part in parts)
        self.draws = max(part.draws for part in parts)
        for hook, what in (('product', 'the products of queries and keys'), ('weights', 'the softmax')):
            if (count := sum(part.overrides(hook) for part in parts)) > 1:
                raise spec.UserError(f'position {text!r}: at most one scheme may replace {what}, here {count} do')

    @property
    def name(self):
        return self.text

    def overrides(self, hook):
        return any(part.overrides(hook) for part in self.parts)

    def extent(self, length):
        for part in sorted(self.parts, key=lambda part: not part.overrides('remap')):  # remaps run before other hooks
            length = part.extent(length)
        return length

    def remap(self, pos, *, valid=None, key=None, train=False):
        return self.place(pos, valid=valid, key=key, train=train)[1]

    def place(self, pos, *, valid=None, key=None, train=False):
        placed = []
        for index, part in enumerate(self.parts):
            part_key = None if key is None else fold_in(key, index)
            part, pos = part.place(pos, valid=valid, key=part_key, train=train)
            placed.append(part)
        if all(one is other for one, other in zip(placed, self.parts, strict=True)):
            return self, pos
        return Chain(placed, self.text), pos

    def embed(self, x, pos):
        for part in self.parts:
            x = part.embed(x, pos)
        return x

    def qk(self, q, k, coords):
        for part in self.parts:
            q, k = part.qk(q, k, coords)
        return q, k

    def bias(self, q_pos, k_pos):
        return _sum(part.bias(q_pos, k_pos) for part in self.parts)

    def content(self, q, k, q_pos, k_pos):
        return _sum(part.content(q, k, q_pos, k_pos) for part in self.parts)

    def product(self, q, k, coords):
        (part,) = (part for part in self.parts if part.overrides('product'))
        return part.product(q, k, coords)

    def rows(self, logits, mask, q, coords):
        for part in self.parts:
            logits = part.rows(logits, mask, q, coords) if part.overrides('rows') else logits
        return logits

    def weights(self, logits, mask, q, coords):
        (part,) = (part for part in self.parts if part.overrides('weights'))
        return part.weights(logits, mask, q, coords)

    def values(self, weights, q_pos, k_pos):
        return _sum(part.values(weights, q_pos, k_pos) for part in self.parts)


def of_heads(scheme: Position, kept: tuple[int, ...], heads: int) -> Position:
    """Scheme for the `kept` heads of a layer, given the scheme for all `heads` of them. Raises `UserError` for schemes
    in which heads depend on each other."""
    if isinstance(scheme, Chain):
        return Chain([of_heads(part, kept, heads) for part in scheme.parts], scheme.text)
    if scheme.mixes_heads:
        raise spec.UserError(f'position scheme {scheme.name!r} mixes heads: none of them can be removed')
    return (_OffsetBiasOfHeads if isinstance(scheme, OffsetBias) else OfHeads)(scheme, kept, heads)


class OfHeads(Position):
    """Some heads of a scheme. Its hooks see zeros in the place of the other heads."""

    def __init__(self, scheme: Position, kept: tuple[int, ...], heads: int):
        self.scheme, self.kept, self.heads = scheme, kept, heads

    @property
    def name(self):
        return self.scheme.name

    def overrides(self, hook):
        return self.scheme.overrides(hook)

    def qk(self, q, k, coords):
        if coords.visible.ndim == 3:
            coords = dataclasses.replace(coords, visible=self._fill(coords.visible, 2))
        q, k = self.scheme.qk(self._fill(q, 2), self._fill(k, 2), coords)
        return self._take(q, 2), self._take(k, 2)

    def bias(self, q_pos, k_pos):
        return self._take(self.scheme.bias(q_pos, k_pos), 1)

    def content(self, q, k, q_pos, k_pos):
        return self._take(self.scheme.content(self._fill(q, 2), self._fill(k, 2), q_pos, k_pos), 1)

    def product(self, q, k, coords):
        return self._take(self.scheme.product(self._fill(q, 2), self._fill(k, 2), coords), 1)

    def rows(self, logits, mask, q, coords):
        return self._of_rows(self.scheme.rows, logits, mask, q, coords)

    def weights(self, logits, mask, q, coords):
        return self._of_rows(self.scheme.weights, logits, mask, q, coords)

    def _of_rows(self, hook, logits, mask, q, coords):
        mask = mask if mask.shape[1] == 1 else self._fill(mask, 1)
        return self._take(hook(self._fill(logits, 1), mask, self._fill(q, 2), coords), 1)

    def values(self, weights, q_pos, k_pos):
        return self._take(self.scheme.values(self._fill(weights, 1), q_pos, k_pos), 2)

    def _fill(self, x, axis):
        shape = (*x.shape[:axis], self.heads, *x.shape[axis + 1 :])
        return jnp.zeros(shape, x.dtype).at[(slice(None),) * axis + (np.array(self.kept),)].set(x)

    def _take(self, x, axis):
        return None if x is None else jnp.take(x, np.array(self.kept), axis)


class _OffsetBiasOfHeads(OfHeads, OffsetBias):
    """Some heads of a bias of the offset, which cores compute once per offset."""

    def offset_bias(self, offset):
        return self._take(self.scheme.offset_bias(offset), 0)  # pyright: ignore[reportAttributeAccessIssue]


def _sum(terms):
    terms = [term for term in terms if term is not None]
    return sum(terms[1:], start=terms[0]) if terms else None
