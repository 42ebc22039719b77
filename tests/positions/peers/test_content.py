"""Schemes that depend on content against public implementations: CoPE and forgetting gates of x-transformers, and of
transformers DeBERTa-v2 and XLNet (Transformer-XL's encoding). Inputs and parameters are random and asymmetric.

Conventions that differ: x-transformers takes logits or inputs and returns biases, heads first; PyTorch's projections
have the output dimension first; XLNet puts time first.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mha import positions
from mha.cores import dense
from mha.nn import masks
from mha.positions import Coords, Dims

torch = pytest.importorskip('torch')

BATCH, LENGTH, HEADS, HEAD_DIM, DIM = 2, 11, 4, 6, 24


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def make(text, causal, **parameters):
    """The scheme with these parameters, all that it has."""
    dims = Dims(DIM, HEADS, HEAD_DIM, max_len=32, causal=causal)
    scheme = positions.make(text, dims, rngs=nnx.Rngs(0))
    assert set(nnx.to_pure_dict(nnx.state(scheme, nnx.Param))) == set(parameters)
    for name, value in parameters.items():
        getattr(scheme, name)[...] = jnp.asarray(value)
    return scheme


def weights(scheme, q, k, causal, x=None):
    pos = jnp.arange(LENGTH)[None]
    mask = masks.causal() if causal else masks.full()
    x = jnp.zeros((BATCH, LENGTH, DIM)) if x is None else jnp.asarray(x)
    coords = Coords(q_pos=pos, k_pos=pos, visible=mask.dense(LENGTH, LENGTH)[:, 0].sum(-1), x=x)
    turned = scheme.qk(jnp.asarray(q), jnp.asarray(k), coords)
    return dense.weights(*turned, position=scheme, coords=coords, mask=mask, scale=HEAD_DIM**-0.5)


def softmax(logits, causal):
    """Of torch logits [B, H, T, S], masked by the value that x-transformers uses."""
    future = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    return logits.masked_fill(future, -torch.finfo(logits.dtype).max).softmax(-1) if causal else logits.softmax(-1)


def scaled(q, k):
    return torch.einsum('bthk,bshk->bhts', torch.tensor(q), torch.tensor(k)) * HEAD_DIM**-0.5


@pytest.mark.parametrize('p_max', [3, 16])
def test_cope(p_max):
    """Theirs takes masked logits, of which the sigmoid is 0."""
    theirs = pytest.importorskip('x_transformers.x_transformers').CoPE(HEAD_DIM, HEADS, p_max)
    table, q, k = draw(p_max, HEAD_DIM), *draw(2, BATCH, LENGTH, HEADS, HEAD_DIM)
    with torch.no_grad():
        theirs.pos_emb.copy_(torch.tensor(table))
        logits = scaled(q, k)
        future = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        masked = logits.masked_fill(future, -torch.finfo(logits.dtype).max)
        expected = softmax(logits + theirs(torch.tensor(q).transpose(1, 2), masked), causal=True)
    np.testing.assert_allclose(weights(make(f'cope({p_max})', True, e=table), q, k, True), expected, atol=1e-5)


@pytest.mark.parametrize('causal', [True, False])
def test_forgetting_gates(causal):
    """Theirs has both gate sets in one linear layer, the past's first, as we have."""
    module = pytest.importorskip('x_transformers.x_transformers')
    theirs = module.DataDependentAlibi(DIM, HEADS, causal=causal)
    sets = 1 if causal else 2
    w, b = draw(DIM, sets * HEADS), draw(sets * HEADS)
    x, (q, k) = draw(BATCH, LENGTH, DIM), draw(2, BATCH, LENGTH, HEADS, HEAD_DIM)
    with torch.no_grad():
        linear = theirs.to_forget_gates[0]
        assert (linear.bias == 5).all()  # our bias_init=5.0
        linear.weight.copy_(torch.tensor(w.T))
        linear.bias.copy_(torch.tensor(b))
        expected = softmax(scaled(q, k) + theirs(torch.tensor(x)), causal)
    np.testing.assert_allclose(weights(make('fox', causal, w=w, b=b), q, k, causal, x), expected, atol=1e-5)


@pytest.mark.parametrize(('k', 'buckets'), [(4, None), (512, None), (64, 4), (9, 4)])
def test_deberta(k, buckets):
    """Theirs projects the table with a bias, here zero, and the queries and keys itself."""
    module = pytest.importorskip('transformers.models.deberta_v2.modeling_deberta_v2')
    config = module.DebertaV2Config(
        hidden_size=DIM,
        num_attention_heads=HEADS,
        relative_attention=True,
        max_relative_positions=k,
        position_buckets=buckets or -1,
        pos_att_type=['c2p', 'p2c'],
        share_att_key=False,
    )
    theirs = module.DisentangledSelfAttention(config).eval()
    rows = 2 * (buckets or k)
    table, (w_kr, w_qr) = draw(rows, DIM), draw(2, DIM, HEADS, HEAD_DIM) / 4
    with torch.no_grad():
        for linear, w in ((theirs.pos_key_proj, w_kr), (theirs.pos_query_proj, w_qr)):
            linear.weight.copy_(torch.tensor(w.reshape(DIM, -1).T))
            linear.bias.zero_()
        x = torch.tensor(draw(BATCH, LENGTH, DIM, seed=1))
        q, key = (linear(x).view(BATCH, LENGTH, HEADS, -1).numpy() for linear in (theirs.query_proj, theirs.key_proj))
        everything = torch.ones(BATCH, 1, LENGTH, LENGTH)
        _, expected = theirs(x, everything, output_attentions=True, rel_embeddings=torch.tensor(table))
    text = f"deberta({k}, log_buckets={buckets}, p2c_index='released')"
    ours = weights(make(text, False, table=table, w_kr=w_kr, w_qr=w_qr), q, key, False)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize('n', [(4, 16), (8, 60), (32, 128), (256, 512), (256, 2048)], ids=str)
def test_deberta_buckets(n):
    """Rows of our table against theirs, whose float32 logarithm rounds no boundary here."""
    module = pytest.importorskip('transformers.models.deberta_v2.modeling_deberta_v2')
    buckets, k = n
    offset = np.arange(-2 * k, 2 * k + 1)
    expected = module.make_log_bucket_position(torch.tensor(offset), buckets, k).long() + buckets
    scheme = positions.make(f'deberta({k}, log_buckets={buckets})', Dims(DIM, HEADS, HEAD_DIM, 32), rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(scheme.row(jnp.asarray(offset)), expected.clamp(0, 2 * buckets - 1))


@pytest.mark.parametrize(
    ('arguments', 'clamp'), [("form='channels'", -1), ("form='content'", -1), ("form='content', clamp=3", 3)]
)
def test_transformer_xl(arguments, clamp):
    """XLNet's is bidirectional with the relative shift: r_w_bias is u, r_r_bias is v; time comes first."""
    module = pytest.importorskip('transformers.models.xlnet.modeling_xlnet')
    config = module.XLNetConfig(d_model=DIM, n_head=HEADS, n_layer=1, vocab_size=3, clamp_len=clamp, dropout=0.0)
    model = module.XLNetModel(config)
    theirs = model.layer[0].rel_attn
    u, v = draw(2, HEADS, HEAD_DIM)
    w, (q, k) = draw(HEADS, HEAD_DIM, DIM) / 4, draw(2, BATCH, LENGTH, HEADS, HEAD_DIM)
    with torch.no_grad():
        theirs.r_w_bias.copy_(torch.tensor(u))
        theirs.r_r_bias.copy_(torch.tensor(v))
        r = model.relative_positional_encoding(LENGTH, LENGTH, bsz=BATCH)
        projected = torch.einsum('ibp,nkp->ibnk', r, torch.tensor(w))
        q_first, k_first = (torch.tensor(a).transpose(0, 1) for a in (q, k))
        _, expected = theirs.rel_attn_core(q_first, k_first, k_first, projected, output_attentions=True)
    ours = weights(make(f'txl({arguments})', False, u=u, v=v, w=w), q, k, False)
    np.testing.assert_allclose(ours, expected.permute(2, 3, 0, 1), atol=2e-5)
