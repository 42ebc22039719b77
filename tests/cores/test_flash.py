"""The flash core, interpreted on any device, against `dense`: values, gradients, masks, lengths; what it refuses; and
that its kernels lower for CUDA on a machine without a GPU."""

import itertools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mha import cores
from mha.cores import flash
from mha.nn import masks
from mha.positions import Coords, Dims, Position, make
from mha.spec import UserError

B, H, BLOCK = 2, 3, 16
VALID = np.random.default_rng(1).random((B, 40)) < 0.7
VALID[0, 0], VALID[1, :20] = False, False  # under a causal mask these queries see no key
PAD = masks.padding(jnp.asarray(VALID))
ONE_ROW = masks.padding(jnp.asarray(np.arange(40)[None] < 35))
T5 = 't5(buckets=8, max_distance=16)'
BIASES = f'{T5}|alibi(learned=True)'


def inputs(queries=40, keys=40, width=8, v_width=8, dtype=jnp.float32):
    """q, k, v and the gradient of the output."""
    rng = np.random.default_rng(0)
    shapes = ((queries, width), (keys, width), (keys, v_width), (queries, v_width))
    return [jnp.asarray(rng.standard_normal((B, n, H, w)), dtype) for n, w in shapes]


def coords(queries, keys, contiguous=True):
    return Coords(
        q_pos=jnp.arange(queries)[None],
        k_pos=jnp.arange(keys)[None],
        visible=jnp.full((1, queries), keys),
        x=jnp.zeros((B, queries, 8)),
        contiguous=contiguous,
    )


def scheme(spec, width=8):
    return make(spec, Dims(H * width, H, width, max_len=64), rngs=nnx.Rngs(0))


def run(core, spec, mask, q, k, v, do):
    return program(core, spec, mask, q, k, do)(q, k, v)


def program(core, spec, mask, q, k, do):
    """The output, and gradients of q, k, v and the scheme's parameters, as a function of values of these shapes."""
    graphdef, state = nnx.split(scheme(spec, q.shape[-1]))
    at = coords(q.shape[1], k.shape[1])

    @jax.jit
    def step(q, k, v, state):
        def loss(q, k, v, state):
            position = nnx.merge(graphdef, state)
            out = cores.attend(q, k, v, position=position, coords=at, mask=mask, core=core)
            return jnp.vdot(out.astype(jnp.float32), do.astype(jnp.float32)), out

        gradients, out = jax.grad(loss, (0, 1, 2, 3), has_aux=True)(q, k, v, state)
        return out, *gradients

    return lambda q, k, v: jax.tree.leaves(step(q, k, v, state))


KERNELS = flash.Flash(block=BLOCK, interpret=True)


def interpreted(*arguments):
    return run(KERNELS, *arguments)


CASES = {
    'none': ('none', masks.full(), {}),
    'rope': ('rope', masks.causal(), dict(queries=33, keys=33)),
    't5': (T5, masks.full(), dict(queries=48, keys=48)),
    'alibi': ('alibi(learned=True)', masks.causal() & PAD, {}),
    'both biases': (BIASES, masks.window(5, 9), {}),
    'a bias and channels': (
        f'sandwich(dbar=8, as_channels=True)|{T5}',
        masks.causal() & masks.window(20) & ONE_ROW,
        {},
    ),
    'one block': (T5, masks.causal(), dict(queries=7, keys=7)),
    'wide heads': ('alibi', masks.causal(), dict(width=72, v_width=24)),
    'more queries than keys': (T5, masks.window(3, 3), dict(queries=40, keys=17)),
    'more keys than queries': (BIASES, masks.causal() & PAD, dict(queries=20)),
    'no key on the right side': ('alibi(variant="asymmetric")', PAD, {}),
}


COVERED = {'rope', 't5', 'alibi'}
"""Cases whose parts are also in other ones, together."""


@pytest.mark.parametrize(
    'case', [pytest.param(case, marks=[pytest.mark.slow] if case in COVERED else []) for case in CASES]
)
def test_values_and_gradients_are_those_of_dense(case):
    spec, mask, sizes = CASES[case]
    arguments = spec, mask, *inputs(**sizes)
    for found, expected in zip(interpreted(*arguments), run('dense', *arguments), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(expected).max()))


MASKS = {
    'full': lambda keys: masks.full(),
    'causal': lambda keys: masks.causal(),
    'window': lambda keys: masks.window(3, 9),
    'padding': lambda keys: masks.padding(jnp.asarray(VALID)[:, :keys]),
    'all three': lambda keys: masks.causal() & masks.window(7) & masks.padding(jnp.arange(keys)[None] < 15),
}


anything = given(
    queries=st.integers(1, 40),
    keys=st.integers(1, 40),
    mask=st.sampled_from(sorted(MASKS)),
    spec=st.sampled_from(('none', 'rope', T5, 'alibi(learned=True)', 'kerple', f'rope|{BIASES}')),
)
UNSHRUNK = dict(deadline=None, derandomize=True, phases=[Phase.generate])
"""Failures are not shrunk: each try takes three compilations."""


@settings(max_examples=3, **UNSHRUNK)
@anything
def test_dense_blockwise_and_flash_agree(queries, keys, mask, spec):
    assert_all_agree(queries, keys, mask, spec)


@pytest.mark.slow
@settings(max_examples=15, **UNSHRUNK)
@anything
def test_dense_blockwise_and_flash_agree_more_often(queries, keys, mask, spec):
    assert_all_agree(queries, keys, mask, spec)


def assert_all_agree(queries, keys, mask, spec):
    """Values and all gradients, over random shapes, masks and schemes."""
    arguments = spec, MASKS[mask](keys), *inputs(queries, keys)
    expected = run('dense', *arguments)
    for found in (interpreted(*arguments), run('blockwise', *arguments)):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max() + 1e-5)


def test_rows_without_a_visible_key_are_zero_and_hidden_keys_may_hold_anything():
    q, k, v, do = inputs()
    visible = jnp.asarray(VALID)[:, :, None, None]
    both = program(KERNELS, T5, PAD & masks.causal(), q, k, do)
    out, *gradients = both(q, k, v)
    for x in (out, gradients[0]):
        np.testing.assert_array_equal(x[1, :20], 0)
        np.testing.assert_array_equal(x[0, 0], 0)
    assert all(np.isfinite(x).all() for x in gradients)
    k, v = (jnp.where(visible, x, 1e35) for x in (k, v))
    np.testing.assert_array_equal(both(q, k, v)[0], out)


def test_tiles_that_a_window_hides_are_not_visited():
    q, k, v, do = inputs(queries=64, keys=64)
    far = np.where(np.arange(64)[None, :, None, None] < 16, np.nan, 1).astype(np.float32)
    out, dq, *_ = interpreted('none', masks.causal() & masks.window(16), q, k * far, v * far, do)
    assert np.isfinite(out[:, 32:]).all()
    assert np.isfinite(dq[:, 32:]).all()
    assert np.isnan(out[:, :16]).all()


@pytest.mark.parametrize('lengths', [(1, 1), (4, 4), (9, 9), (16, 5), (5, 16), (16, 8), (16, 16)])
def test_diagonals_are_those_with_a_visible_pair(lengths):
    queries, keys = lengths
    i, j = np.arange(queries)[:, None], np.arange(keys)[None]
    for low, high in itertools.product((-100, -7, -4, -1, 0), (0, 1, 4, 6, 100)):
        plan = flash.Plan.cut(queries, keys, low, high, 4, 1.0, True)
        found = set(range(plan.first, plan.first + plan.diagonals))
        needed = set((i // 4 - j // 4)[(i - j >= low) & (i - j <= high)].tolist())
        if queries % 4 == keys % 4 == 0:
            assert found == needed
        assert found >= needed


def test_tiles_are_the_bias_cut_into_blocks():
    position, length = scheme(BIASES), 40
    plan = flash.Plan.cut(length, length, -100, 100, BLOCK, 1.0, True)
    at = jnp.arange(length)[None]
    tiles, bias = jax.jit(lambda: (plan.tiles(position), position.bias(at, at)[0]))()
    for i, j in np.ndindex(3, 3):
        rows, columns = (slice(n * BLOCK, (n + 1) * BLOCK) for n in (i, j))
        block = bias[:, rows, columns]
        np.testing.assert_array_equal(tiles[:, i - j - plan.first, : block.shape[1], : block.shape[2]], block)


def test_bfloat16():
    """Products of bfloat16, all else in float32."""
    arguments = inputs(dtype=jnp.bfloat16)
    low = interpreted(BIASES, masks.causal(), *arguments)
    high = run('dense', BIASES, masks.causal(), *(x.astype(jnp.float32) for x in arguments))
    for found, expected in zip(low, high, strict=True):
        np.testing.assert_allclose(found.astype(np.float32), expected, atol=0.02 * np.abs(expected).max())
    assert [x.dtype for x in low] == [jnp.bfloat16] * 4 + [jnp.float32] * 2


def test_under_vmap():
    q, k, v, _ = inputs(queries=20, keys=20)

    def attend(q, k, v):
        position, at = scheme(T5), coords(20, 20)
        return cores.attend(q, k, v, position=position, coords=at, core=KERNELS)

    several = [jnp.stack([x, 2 * x]) for x in (q, k, v)]
    found = jax.jit(jax.vmap(attend))(*several)
    np.testing.assert_allclose(found[1], jax.jit(attend)(2 * q, 2 * k, 2 * v), atol=1e-6)


class OfPositions(Position):
    def bias(self, q_pos, k_pos):
        return 0.1 * (q_pos[:, None, :, None] * k_pos[:, None, None, :]).repeat(H, axis=1)


class Adds(Position):
    def values(self, weights, q_pos, k_pos):
        return weights.swapaxes(1, 2)[..., :8]


class Replaces(Position):
    def weights(self, logits, mask, q, coords):
        return jax.nn.sigmoid(logits)


def plain(kind):
    return kind(Dims(8, H, 8, 64), rngs=nnx.Rngs(0))


def attend(position, mask=None, contiguous=True, width=8, dtype=jnp.float32, core='flash', **options):
    q, k, v, _ = inputs(20, 20, width=width, dtype=dtype)
    at = coords(20, 20, contiguous)
    return cores.attend(q, k, v, position=position, coords=at, mask=mask, core=core, **options)


REFUSED = {
    'bias is not one of the offset alone': lambda: dict(position=plain(OfPositions)),
    "has a 'content' hook": lambda: dict(position=scheme('dape')),
    "has a 'values' hook": lambda: dict(position=plain(Adds)),
    'not known to be the slot numbers': lambda: dict(position=scheme(T5), contiguous=False),
    'the mask is not an intersection': lambda: dict(position=scheme(T5), mask=masks.causal() & masks.prefix(4)),
    'wider than 256': lambda: dict(position=scheme('none'), width=257),
}


@pytest.mark.parametrize('reason', REFUSED)
def test_what_the_kernels_do_not_know_runs_in_blocks(reason, caplog):
    flash.log_once.cache_clear()
    options = REFUSED[reason]()
    expected = attend(core='dense', **options)
    with caplog.at_level(logging.WARNING, logger=flash.__name__):
        for _ in range(2):
            np.testing.assert_allclose(attend(**options, core=flash.Flash(interpret=True)), expected, atol=1e-5)
    (record,) = caplog.records  # said once, not per call
    assert reason in record.message


def test_refusals_that_need_no_run():
    q, k, v, _ = inputs(20, 20)
    options = dict(position=scheme('none'), coords=coords(20, 20), mask=masks.full(), interpret=True)
    assert flash.refusal(q, k, v, **options) is None
    assert 'dropped out' in flash.refusal(q, k, v, **options, dropout_rate=0.1, rngs=nnx.Rngs(0))
    assert flash.refusal(q, k, v, **options, dropout_rate=0.1) is None
    assert 'float32, bfloat16' in flash.refusal(q, k.astype(jnp.bfloat16), v, **options)
    if jax.default_backend() != 'gpu':
        assert 'takes a GPU' in flash.refusal(q, k, v, **{**options, 'interpret': None})


def test_a_scheme_that_replaces_the_softmax_is_refused():
    with pytest.raises(UserError, match='core=flash sees the attention matrix in tiles'):
        attend(plain(Replaces))


@pytest.mark.parametrize(
    ('spec', 'dtype'),
    [
        ('none', jnp.bfloat16),
        (BIASES, jnp.float32),
        pytest.param('none', jnp.float32, marks=pytest.mark.slow),
        pytest.param(BIASES, jnp.bfloat16, marks=pytest.mark.slow),
    ],
)
def test_the_kernels_lower_for_cuda_without_a_gpu(spec, dtype, lower_for_cuda):
    graphdef, state = nnx.split(scheme(spec, 72))
    mask = masks.causal() & masks.padding(jnp.arange(100)[None] < 90)

    def loss(q, k, v, state):
        position, at = nnx.merge(graphdef, state), coords(100, 100)
        out = cores.attend(q, k, v, position=position, coords=at, mask=mask, core=flash.Flash(interpret=False))
        return out.astype(jnp.float32).sum()

    text = lower_for_cuda(jax.jit(jax.grad(loss, (0, 1, 2, 3))), *inputs(100, 100, 72, 24, dtype)[:3], state)
    kernels = ('forward_kernel', 'dq_kernel', 'dkv_kernel', *(['dtiles_kernel'] if spec == BIASES else []))
    assert all(f'name = "{kernel}"' in text for kernel in kernels)
    assert text.count('custom_call @__gpu$xla.gpu.triton') == len(kernels)
