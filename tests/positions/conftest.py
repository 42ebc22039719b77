"""Shared parts of the schemes' oracle tests: random queries and keys, coordinates, masks and a float64 softmax."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import cores, positions
from mha.cores import dense
from mha.nn import masks
from mha.positions import Coords, Dims

LENGTH, HEAD_DIM, BATCH = 13, 8, 2
WHERE = {
    'contiguous': np.arange(LENGTH),
    'random': np.sort([*range(10, 16), *np.random.default_rng(7).choice(range(16, 200), LENGTH - 6, replace=False)]),
}
"""Random positions begin with a run of neighbours: both directions meet near and far offsets."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One attention call in float64, and the scheme under test beside it in float32."""

    causal: bool
    heads: int
    where: str

    @property
    def dims(self):
        return Dims(dim=24, heads=self.heads, head_dim=HEAD_DIM, max_len=256, causal=self.causal)

    @property
    def pos(self):
        return WHERE[self.where]

    @property
    def offset(self):
        """D[i, j] = p_i - p_j: the past is positive."""
        return self.pos[:, None] - self.pos[None, :]

    def draw(self, name, *shape):
        """Standard normal float64 values that float32 represents exactly."""
        rng = np.random.default_rng([ord(letter) for letter in name])
        return rng.standard_normal(shape).astype(np.float32).astype(np.float64)

    @property
    def q(self):
        return self.draw('q', BATCH, LENGTH, self.heads, HEAD_DIM)

    @property
    def k(self):
        return self.draw('k', BATCH, LENGTH, self.heads, HEAD_DIM)

    def dot(self, q=None, k=None):
        """q . k / sqrt(K) in float64, [B, H, T, S]."""
        q, k = self.q if q is None else q, self.k if k is None else k
        return np.einsum('bthk,bshk->bhts', q, k) / np.sqrt(HEAD_DIM)

    def softmax(self, logits):
        logits = np.where(np.tril(np.ones((LENGTH, LENGTH), bool)) | (not self.causal), logits, -np.inf)
        logits = np.exp(logits - logits.max(-1, keepdims=True))
        return logits / logits.sum(-1, keepdims=True)

    def make(self, spec):
        """The scheme with its parameters at random values of order one."""
        scheme = positions.make(spec, self.dims, rngs=nnx.Rngs(0))
        params = nnx.state(scheme, nnx.Param)
        leaves, tree = jax.tree.flatten(params)
        leaves = [jnp.asarray(0.5 * self.draw(f'param{i}', *leaf.shape), leaf.dtype) for i, leaf in enumerate(leaves)]
        nnx.update(scheme, jax.tree.unflatten(tree, leaves))
        return scheme

    def check(self, scheme, logits, atol=1e-5):
        """The scheme's attention weights and outputs are those of the oracle's `logits` [B, H, T, S]."""
        q, k = jnp.asarray(self.q, jnp.float32), jnp.asarray(self.k, jnp.float32)
        v = self.draw('v', BATCH, LENGTH, self.heads, 5)
        pos = jnp.asarray(self.pos)[None]
        mask = masks.causal() if self.causal else masks.full()
        visible = mask.dense(LENGTH, LENGTH)[:, 0].sum(-1)
        x = jnp.asarray(self.draw('x', BATCH, LENGTH, 24), jnp.float32)
        coords = Coords(q_pos=pos, k_pos=pos, visible=visible, x=x)
        expected = self.softmax(logits)
        options = dict(position=scheme, coords=coords, mask=mask)
        weights = dense.weights(*scheme.qk(q, k, coords), scale=HEAD_DIM**-0.5, **options)
        np.testing.assert_allclose(weights, expected, atol=atol)
        out = cores.attend(q, k, jnp.asarray(v, jnp.float32), core='dense', **options)
        np.testing.assert_allclose(out, np.einsum('bhts,bshv->bthv', expected, v), atol=3 * atol)


PAIRS = ((False, 12, 'random'), (True, 12, 'contiguous'), (False, 4, 'contiguous'), (True, 4, 'random'))
"""Every two of direction, head count and kind of positions meet. The quick tests have 12 heads, no power of two and the
size of no other axis: another number compiles every operation anew."""


@pytest.fixture(
    params=[pytest.param(pair, marks=[pytest.mark.slow] * (pair[1] == 4)) for pair in PAIRS],
    ids=[f'{"causal" if causal else "bidirectional"}-{heads}heads-{where}' for causal, heads, where in PAIRS],
)
def case(request):
    return Case(*request.param)
