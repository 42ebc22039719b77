"""Positions for some heads only: the other heads see no positions.

`'heads(4)|rope'` gives the first four heads rope and the others none. Heads without positions beside heads with ALiBi
are part of NAPE (Vasylenko et al., 2025, arXiv:2506.16640).
"""

import jax.numpy as jnp

from mha.arguments import Count
from mha.positions.base import Position


class Heads(Position):
    """The rest of the spec for the first `count` heads, by default half of all. It may not act on embeddings or replace
    the products or the softmax."""

    wraps = True

    def __init__(self, dims, count: Count | None = None, *, inner: Position, rngs):
        self.count, self.inner = dims.heads // 2 if count is None else count, inner
        if self.count > dims.heads:
            raise ValueError(f'count must be at most {dims.heads}, the number of all heads, not {count}')
        parts = getattr(inner, 'parts', [inner])
        if any(type(part).place is not Position.place for part in parts):
            raise ValueError('acts on some heads, but what follows it draws more than coordinates, for all heads')
        for hook in ('embed', 'product', 'weights'):
            if inner.overrides(hook):
                raise ValueError(f'acts on some heads, but what follows it has a {hook!r} hook, which acts on all')
        for claim in ('directed', 'per_example', 'per_layer', 'cacheable', 'draws'):
            setattr(self, claim, getattr(inner, claim))
        self.mixes_heads = inner.mixes_heads

    def overrides(self, hook):
        return self.inner.overrides(hook)

    def extent(self, length):
        return self.inner.extent(length)

    def remap(self, pos, *, valid=None, key=None, train=False):
        return self.inner.remap(pos, valid=valid, key=key, train=train)

    def qk(self, q, k, coords):
        changed = self.inner.qk(q, k, coords)
        q, k = (jnp.pad(x, [(0, 0)] * 3 + [(0, y.shape[3] - x.shape[3])]) for x, y in zip((q, k), changed, strict=True))
        return tuple(self._choose(new, old, 2) for new, old in zip(changed, (q, k), strict=True))

    def bias(self, q_pos, k_pos):
        return self._choose(self.inner.bias(q_pos, k_pos), 0.0, 1)

    def content(self, q, k, q_pos, k_pos):
        return self._choose(self.inner.content(q, k, q_pos, k_pos), 0.0, 1)

    def rows(self, logits, mask, q, coords):
        return self._choose(self.inner.rows(logits, mask, q, coords), logits, 1)

    def values(self, weights, q_pos, k_pos):
        return self._choose(self.inner.values(weights, q_pos, k_pos), 0.0, 2)

    def _choose(self, new, old, axis):
        """`new` for the first heads, `old` for the others."""
        if new is None:
            return None
        shape = [-1 if each == axis else 1 for each in range(new.ndim)]
        return jnp.where((jnp.arange(new.shape[axis]) < self.count).reshape(shape), new, old)
