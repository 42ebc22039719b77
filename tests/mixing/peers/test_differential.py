"""Differential attention against DiffLlama of transformers, with rotary positions.

There, heads h and h + H are the two maps of a head, queries and keys of one width, and the values of both are one value
here. Its norm has no gain, and ours starts at a gain of one.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha.model.attention import MultiHeadAttention
from mha.nn import masks

torch = pytest.importorskip('torch')

B, T, H, K, D, LAYER = 2, 9, 3, 4, 10, 2


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def test_diffllama():
    peer = pytest.importorskip('transformers.models.diffllama.modeling_diffllama')
    config = peer.DiffLlamaConfig(
        hidden_size=D,
        num_attention_heads=2 * H,
        num_key_value_heads=2 * H,
        head_dim=K,
        rms_norm_eps=1e-5,
        attn_implementation='eager',
    )
    theirs = peer.DiffLlamaAttention(config, LAYER)
    ours = MultiHeadAttention(
        H, D, head_dim=2 * K, position='rope', mixing='differential', layer=LAYER, use_bias=False, rngs=nnx.Rngs(0)
    )
    weights = {name: draw(D, 2 * H * K, seed=seed) for seed, name in enumerate(('q', 'k', 'v'))}
    vectors, out = draw(4, K), draw(H, 2 * K, D)
    with torch.no_grad():
        for name, weight in weights.items():
            getattr(theirs, f'{name}_proj').weight.copy_(torch.tensor(weight.T))
        theirs.o_proj.weight.copy_(torch.tensor(out.reshape(-1, D).T))
        for name, vector in zip(('q1', 'k1', 'q2', 'k2'), vectors, strict=True):
            getattr(theirs, f'lambda_{name}').copy_(torch.tensor(vector))
        x, pos = torch.tensor(draw(B, T, D, seed=5)), torch.arange(T)[None].expand(B, T)
        turns = peer.DiffLlamaRotaryEmbedding(config)(x, pos)
        future = torch.full((T, T), float('-inf')).triu(1)
        expected, _ = theirs(x, turns, future)
    for layer, weight in zip((ours.query, ours.key, ours.value), weights.values(), strict=True):
        layer.kernel[...] = jnp.asarray(np.concatenate(np.split(weight.reshape(D, 2 * H, K), 2, axis=1), axis=-1))
    ours.out.kernel[...], ours.mixing.vectors[...] = jnp.asarray(out), jnp.asarray(vectors)
    found = ours(jnp.asarray(x.numpy()), mask=masks.causal())
    np.testing.assert_allclose(found, expected, atol=1e-4)
