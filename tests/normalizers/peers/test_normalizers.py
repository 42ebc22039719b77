"""Normalizers and soft caps against public implementations: entmax of its authors (PyPI), the sinks of gpt-oss and the
soft caps of Gemma 2 in transformers. Values and gradients, of random inputs."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import cores, normalizers, positions
from mha.nn import masks
from mha.positions import Coords, Dims

torch = pytest.importorskip('torch')

B, T, H, K = 2, 9, 3, 4
DIMS = Dims(H * K, H, K, max_len=16, causal=True)


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize('alpha', [1.2, 1.5, 2.0])
@pytest.mark.parametrize('factor', [0.5, 5.0])
def test_entmax(alpha, factor):
    entmax = pytest.importorskip('entmax')
    theirs = {1.5: entmax.entmax15, 2.0: entmax.sparsemax}.get(
        alpha, lambda z, dim: entmax.entmax_bisect(z, alpha, dim)
    )
    z, cotangent = factor * draw(B, H, T, 12), draw(B, H, T, 12, seed=1)
    made, mask = normalizers.make(f'entmax(alpha={alpha})', DIMS, rngs=nnx.Rngs(0)), jnp.ones((1, 1, T, 12), bool)
    found, pull = jax.vjp(lambda z: made.weights(z, mask, None), jnp.asarray(z))
    given = torch.tensor(z, requires_grad=True)
    expected = theirs(given, dim=-1)
    expected.backward(torch.tensor(cotangent))
    np.testing.assert_allclose(found, expected.detach(), atol=1e-5)
    np.testing.assert_allclose(pull(jnp.asarray(cotangent))[0], given.grad, atol=2e-4)


def ours(text, softcap=0.0, **parameters):
    """Output under a causal mask, and gradients of its square by queries, keys, values and parameters."""
    made = normalizers.make(text, DIMS, rngs=nnx.Rngs(0))
    for name, value in parameters.items():
        getattr(made, name)[...] = jnp.asarray(value)
    graph, state = nnx.split(made)
    pos = jnp.arange(T)[None]
    at = dict(coords=Coords(pos, pos, pos + 1, jnp.zeros((B, T, H * K))), mask=masks.causal(), core='dense')
    scheme = positions.make('none', DIMS, rngs=nnx.Rngs(0))

    def loss(state, *qkv):
        variant = cores.Variant(nnx.merge(graph, state), softcap)
        out = cores.attend(*qkv, position=scheme, variant=variant, **at)
        return (out**2).sum(), out

    qkv = [jnp.asarray(draw(B, T, H, K, seed=seed)) for seed in range(3)]
    gradients, out = jax.grad(loss, (0, 1, 2, 3), has_aux=True)(state, *qkv)
    return [out, *gradients[1:], *jax.tree.leaves(gradients[0])]


def theirs(attention, module, *learned, **options):
    """The same of a function of transformers, which has heads before tokens."""
    qkv = [torch.tensor(draw(B, T, H, K, seed=seed), requires_grad=True) for seed in range(3)]
    module.num_key_value_groups, module.training = 1, False
    future = torch.full((T, T), float('-inf')).triu(1)
    out, _ = attention(module, *(x.transpose(1, 2) for x in qkv), future, scaling=K**-0.5, **options)
    (out**2).sum().backward()
    return [out.detach(), *(x.grad for x in (*qkv, *learned))]


def test_sinks_of_gpt_oss():
    peer = pytest.importorskip('transformers.models.gpt_oss.modeling_gpt_oss')
    sinks = torch.tensor(draw(H), requires_grad=True)
    expected = theirs(peer.eager_attention_forward, SimpleNamespace(sinks=sinks), sinks)
    for one, other in zip(ours('sink', s=draw(H)), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_soft_caps_of_gemma_2():
    peer = pytest.importorskip('transformers.models.gemma2.modeling_gemma2')
    expected = theirs(peer.eager_attention_forward, SimpleNamespace(), softcap=0.7)
    for one, other in zip(ours('softmax', softcap=0.7), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
