"""Statistics of heads: equal to plain loops in float64, and they name the heads of a planted model."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mha
from mha import probes
from mha.model import heads
from mha.probes import statistics
from mha.spec import UserError
from tests.probes import planted

T, HEADS, SYMBOLS = 11, 3, 3
TOKENS = jax.random.randint(jax.random.key(0), (2, T), 0, SYMBOLS)
VALID = jnp.arange(T)[None] < jnp.array([[T], [T - 4]])


def model(**options):
    sizes = dict(vocab_size=SYMBOLS, num_classes=3, max_len=64, layers=2, dim=24, heads=HEADS, dropout_rate=0.0)
    return mha.Encoder(rngs=nnx.Rngs(0), **sizes | options)


def oracle(weights, seen, tokens, *, trained, separators):
    """Statistics of one head from its maps [B, T, T], row by row."""
    found = {name: [] for name in probes.COLUMNS if name not in ('stack', 'layer', 'head', 'length')}
    at = {}
    for w, visible, sequence in zip(np.float64(weights), seen, tokens, strict=True):
        for i, (row, sees) in enumerate(zip(w, visible, strict=True)):
            keys = np.flatnonzero(sees)
            if keys.size == 0:
                continue
            entropy = -sum(row[j] * np.log(row[j]) for j in keys if row[j] > 0)
            found['entropy'].append(entropy)
            if keys.size > 1:
                found['relative_entropy'].append(entropy / np.log(keys.size))
            found['distance'].append(sum(row[j] * abs(i - j) for j in keys))
            found['confidence'].append(max(row[keys]))
            same = [j for j in range(i) if sequence[j] == sequence[i]]
            sets = {
                'self': [i],
                'previous': [i - 1],
                'next': [i + 1],
                'first': [0],
                'separators': [j for j in keys if sequence[j] in separators],
                'induction': [j + 1 for j in same],
                'duplicate': same,
                'beyond': [j for j in keys if abs(i - j) >= trained],
            }
            for name, members in sets.items():
                if members := [j for j in members if j in keys]:
                    found[name].append(sum(row[members]))
                    if f'{name}_uniform' in found:
                        found[f'{name}_uniform'].append(len(members) / keys.size)
            for j in keys:
                at.setdefault(j - i, []).append((row[j], j == keys[row[keys].argmax()]))
    often = max(map(len, at.values())) / 2
    profile = {offset: np.mean(values, axis=0) for offset, values in at.items()}
    best = max((offset for offset in at if len(at[offset]) >= often), key=lambda offset: profile[offset][0])
    found['offset'], (found['offset_weight'], found['offset_argmax']) = best, profile[best]
    return {name: np.mean(values) if np.size(values) else np.nan for name, values in found.items()}, profile


def check_same(rows, others):
    """Equal numbers, up to rounding."""
    for row, other in zip(rows, others, strict=True):
        assert numbers(row) == pytest.approx(numbers(other), rel=1e-4, abs=1e-6, nan_ok=True)


def numbers(row):
    return {name: value for name, value in row.items() if name != 'stack'}


@pytest.mark.parametrize(
    'options',
    [
        dict(position='t5'),
        dict(position='rope', causal=True),
        dict(pattern='window(2)|global(1)'),
        pytest.param(dict(position='cope', causal=True), marks=pytest.mark.slow),
        pytest.param(dict(position='stickbreaking', causal=True), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_statistics_are_those_of_plain_loops(options, monkeypatch):
    """Maps of a random model with padding; as a whole and in blocks, of which the last is smaller."""
    seen = probes.record(model(**options), TOKENS, valid=VALID)
    given = dict(trained=5, separators=(1,))
    measured = probes.statistics_of(seen, **given)
    monkeypatch.setattr(statistics, 'BLOCK', 2 * HEADS * T * 4)
    blocks = probes.statistics_of(seen, **given)
    assert [list(row) for row in measured.rows] == [[*probes.COLUMNS]] * 2 * HEADS
    check_same(measured.rows, blocks.rows)
    for row in measured.rows:
        attention, head = seen.attentions[row['layer']], row['head']
        visible = np.broadcast_to(attention.visible() & VALID[:, None, :, None], attention.shape)[:, head]
        wanted, profile = oracle(attention.weights()[:, head], visible, TOKENS, **given)
        assert {name: row[name] for name in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-6, nan_ok=True)
        assert {type(row[name]) for name in wanted} == {float}
        shown = dict(
            zip(measured.offsets['encoder'].tolist(), measured.profiles['encoder'][row['layer'], head], strict=True)
        )
        assert {offset for offset, weight in shown.items() if not np.isnan(weight)} == set(profile)
        for offset, (weight, _) in profile.items():
            assert shown[offset] == pytest.approx(weight, abs=1e-5)


def test_padding_changes_nothing():
    made = model(position='rope')
    short = probes.statistics_of(probes.record(made, TOKENS), trained=5).rows
    tokens = jnp.pad(TOKENS, ((0, 0), (0, 6)), constant_values=2)
    seen = probes.record(made, tokens, valid=jnp.arange(T + 6)[None] < T)
    check_same(short, probes.statistics_of(seen, trained=5, length=T).rows)


def test_causal_heads_see_nothing_after():
    measured = probes.statistics_of(probes.record(model(position='rope', causal=True), TOKENS))
    assert all(np.isnan(row['next']) and row['offset'] <= 0 for row in measured.rows)
    assert np.isnan(measured.profiles['encoder'][:, :, measured.offsets['encoder'] > 0]).all()


def test_roles_of_planted_heads():
    seen = probes.record(planted.model(), planted.tokens())
    rows = {(row['layer'], row['head']): row for row in probes.statistics_of(seen, trained=planted.TOKENS).rows}
    assert {place: probes.roles(row) for place, row in rows.items()} == {
        planted.PREVIOUS: ['positional', 'previous'],
        planted.PAIR[0]: [],
        planted.PAIR[1]: [],
        planted.USELESS: ['uniform'],
        planted.INDUCTION: ['induction'],
        planted.DUPLICATE: ['duplicate'],
        planted.FIRST: ['first'],
        planted.OWN: ['self'],
    }
    assert {place: rows[place]['offset'] for place in (planted.PREVIOUS, *planted.PAIR, planted.OWN)} == {
        planted.PREVIOUS: -1,
        planted.PAIR[0]: -2,
        planted.PAIR[1]: -2,
        planted.OWN: 0,
    }
    for place, column in ((planted.PREVIOUS, 'previous'), (planted.INDUCTION, 'induction'), (planted.FIRST, 'first')):
        assert rows[place][column] == pytest.approx(1, abs=1e-3)


def test_heads_of_a_pruned_model_keep_their_numbers():
    """Layers have different numbers of heads; what is left of the first layer attends as before."""
    tokens, cut = planted.tokens(), heads.prune(planted.model(), heads.parse('0:1;1:0,2'))
    seen = probes.record(cut, tokens)
    left = [(0, 0), (0, 2), (0, 3), (1, 1), (1, 3)]
    found, whole = probes.statistics_of(seen), probes.statistics_of(probes.record(planted.model(), tokens))
    assert [(row['layer'], row['head']) for row in found.rows] == left
    before = {(row['layer'], row['head']): row for row in whole.rows}
    check_same(found.rows[:3], [before[place] for place in left[:3]])
    profile = found.profiles['encoder']
    assert profile.shape == whole.profiles['encoder'].shape
    np.testing.assert_allclose(profile[0, [0, 2, 3]], whole.profiles['encoder'][0, [0, 2, 3]], atol=1e-6)
    assert np.isnan(profile[0, 1]).all()
    (similarity,) = probes.similarity_of(seen)
    assert similarity.heads == left
    assert similarity.divergence.shape == (5, 5)
    sentence = probes.Sentence([str(token) for token in tokens[0].tolist()], [probes.Link('before', (5,), (4,))])
    (relation,) = probes.relations_of(cut, [sentence], lambda one: ([*map(int, one.words)], [*range(planted.TOKENS)]))
    assert relation.best == planted.PREVIOUS
    assert np.argwhere(np.isnan(relation.accuracy)).tolist() == [[0, 1], [1, 0], [1, 2]]


def test_planted_model_repeats_a_sequence():
    tokens = planted.tokens()
    half = planted.SYMBOLS
    predicted = planted.model()(tokens).argmax(-1)
    assert (predicted[:, half:-1] == tokens[:, half + 1 :]).all()


def test_encoder_decoder_and_pairs():
    """Every attention reads its own half of the tokens, with its padding."""
    tokens = jnp.concatenate([TOKENS, TOKENS[:, ::-1]], axis=1)
    valid = jnp.concatenate([VALID, jnp.arange(T)[None] < jnp.array([[T - 2], [T]])], axis=1)
    made = mha.EncoderDecoder(model(position='rope'), max_len=T, layers=1, cross_position='alibi', rngs=nnx.Rngs(1))
    seen = probes.record(made, tokens, valid=valid)
    measured = probes.statistics_of(seen, trained=5, separators=(1,))
    places = [(row['stack'], row['layer']) for row in measured.rows[::HEADS]]
    assert places == [('encoder', 0), ('encoder', 1), ('decoder', 0), ('cross', 0)]
    halves = dict(encoder=(0, 0), decoder=(1, 1), cross=(1, 0))
    for row in measured.rows:
        stack, attention = (
            row['stack'],
            next(x for x in seen.attentions if (x.stack, x.layer) == (row['stack'], row['layer'])),
        )
        query, key = halves[stack]
        real = jnp.split(valid, 2, axis=1)[query][:, None, :, None]
        visible = np.broadcast_to(attention.visible() & real, attention.shape)[:, row['head']]
        read = jnp.split(tokens, 2, axis=1)[key]
        wanted, _ = oracle(attention.weights()[:, row['head']], visible, read, trained=5, separators=(1,))
        if stack == 'cross':
            wanted |= dict.fromkeys([name for name in wanted if name.startswith(('induction', 'duplicate'))], np.nan)
        assert {name: row[name] for name in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-6, nan_ok=True)
    pair = model(position='rope', readout='pair')
    both = probes.statistics_of(probes.record(pair, tokens)).rows
    alone = [
        probes.statistics_of(probes.record(pair, x)).rows for x in (jnp.tile(TOKENS, 2), jnp.tile(TOKENS[:, ::-1], 2))
    ]
    for row, one, other in zip(both, *alone, strict=True):
        assert row['entropy'] == pytest.approx((one['entropy'] + other['entropy']) / 2, rel=1e-4)


@pytest.fixture(scope='module')
def run():
    return mha.load(Path(__file__).parents[1] / 'runs' / 'alibi')


def test_statistics_of_a_run(run, monkeypatch):
    """Those of a recording of the same examples, whatever the batches."""
    rows = probes.head_statistics(run, lengths='3,9', examples=6, separators=['_'])
    assert [(row['length'], row['head']) for row in rows] == [(3, 0), (3, 1), (9, 0), (9, 1)]
    trained = run.task.num_tokens(run.experiment.train_lengths[-1])
    seen = probes.probe(run, length=9, examples=6)
    wanted = probes.statistics_of(seen, trained=trained, separators=run.task.tokenize('_'), length=9).rows
    monkeypatch.setattr(statistics, 'PAIRS', 3 * 18**2)
    for more in (rows[2:], probes.statistics_at(run, 9, examples=6, separators='_').rows):
        check_same(more, wanted)
    assert np.isnan(rows[0]['beyond'])
    assert rows[2]['beyond'] > 0
    with pytest.raises(UserError, match="no symbol 'x'"):
        probes.head_statistics(run, separators='x')


@pytest.mark.slow
def test_long_sequences_fit():
    """4,096 tokens: the maps of this model take a quarter of a gigabyte each."""
    made = model(position='alibi', heads=4, dim=16, max_len=4096)
    seen = jax.jit(lambda tokens: statistics._totals(probes.record(made, tokens), 2048, ()))(jnp.zeros((1, 4096), int))
    assert seen['encoder', 0]['beyond'][1].tolist() == [4096] * 4
