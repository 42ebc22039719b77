"""Arrays of a probe: those of the model, averaged if they are large, and the command that writes them."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mha
from mha import probes
from mha.model import heads
from mha.probes import command, files
from mha.probes.files import Probed
from mha.spec import UserError
from mha.views.probe import page

T, HEADS = 10, 2
TOKENS = jax.random.randint(jax.random.key(0), (1, T), 0, 5)
RUN = Path(__file__).parents[1] / 'runs' / 'alibi'


def model(position='alibi', **options):
    sizes = dict(vocab_size=5, num_classes=5, max_len=T, layers=2, dim=16, heads=HEADS, dropout_rate=0.0)
    return mha.Encoder(position=position, rngs=nnx.Rngs(0), **sizes | options)


def recorded(made, tokens=TOKENS, **options):
    seen = probes.record(made, tokens, **options)
    labels = [[str(token) for token in row] for row in tokens.tolist()]
    return Probed(dataclasses.replace(seen, labels=labels), 'runs/a', 'alibi', 5)


def read(path):
    arrays = dict(np.load(path))
    return json.loads(str(arrays.pop('about'))), arrays


VARIANTS = [
    {},
    dict(normalizer='sink'),
    dict(softcap=2.0),
    dict(gate='head'),
    dict(gate='channel'),
    dict(mixing='talking_heads'),
    dict(mixing='differential'),
]


@pytest.mark.parametrize('options', VARIANTS, ids=str)
def test_arrays_are_the_maps_of_the_model(tmp_path, options):
    one = recorded(model('rope', causal=True, **options))
    about, arrays = read(files.write(tmp_path / 'probe.npz', [one], command='eval.py'))
    (described,) = about['recordings']
    assert about['command'] == 'eval.py'
    assert described['tokens'] == {'tokens': one.recording.labels[0]}
    assert [each['name'] for each in described['attentions']] == ['encoder.0', 'encoder.1']
    attention = one.recording.attentions[1]
    own = {name.rpartition('/')[2]: array for name, array in arrays.items() if name.startswith('0/encoder.1/')}
    content, position, total = attention.logits()
    for name, expected in (('weights', attention.weights()), ('content', content), ('position', position)):
        np.testing.assert_allclose(own[name], expected[0], atol=1e-6)
    np.testing.assert_array_equal(own['visible'][0], np.tri(T, dtype=bool))
    assert {'entropy', 'distance', 'confidence'} <= {*about['statistics'][0]}
    assert np.isfinite(arrays['0/similarity.encoder/divergence']).all()
    contributions = own['weights'] * own['value_norms'][:, None] if 'value_norms' in own else own['contributions']
    np.testing.assert_allclose(contributions, attention.contributions()[0], atol=1e-5)
    np.testing.assert_allclose(np.einsum('thk,shk->hts', own['q'], own['k']), total[0], atol=1e-4)


def test_padding_is_left_out(tmp_path):
    one = recorded(model(), valid=jnp.arange(T)[None] < 7)
    about, arrays = read(files.write(tmp_path / 'probe.npz', [one]))
    assert len(about['recordings'][0]['tokens']['tokens']) == 7
    assert arrays['0/encoder.0/weights'].shape == (HEADS, 7, 7)
    np.testing.assert_allclose(arrays['0/encoder.0/weights'].sum(-1), 1, atol=1e-5)


def test_statistics_of_heads_set_by_hand(tmp_path):
    rows = list(files.head_statistics(recorded(model('none', causal=True))))
    assert [(row['layer'], row['head']) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    one = recorded(model('none', causal=True)).recording.attentions[1]
    weights = np.asarray(one.weights())[0, 1]
    offset = np.arange(T)[:, None] - np.arange(T)
    assert rows[3]['distance'] == pytest.approx((weights * np.abs(offset)).sum() / T, rel=1e-4)
    assert rows[3]['self'] == pytest.approx(np.trace(weights) / T, rel=1e-4)
    assert rows[3]['previous'] == pytest.approx(np.trace(weights, -1) / (T - 1), rel=1e-4)
    logs = np.log(np.where(weights > 0, weights, 1))
    assert rows[3]['entropy'] == pytest.approx(-(weights * logs).sum() / T, rel=1e-4)


def test_large_maps_are_averaged(tmp_path, monkeypatch):
    """In blocks of rows that do not end where groups end."""
    one = recorded(model('rope', causal=True))
    monkeypatch.setattr(files, 'MOST_CELLS', 10)
    monkeypatch.setattr(files, 'SIDES', (4,))
    monkeypatch.setattr(probes.recording, 'BLOCK', HEADS * T * 4)
    about, arrays = read(files.write(tmp_path / 'probe.npz', [one]))
    assert about['recordings'][0]['attentions'][0]['groups'] == [3, 3]
    own = {name.rpartition('/')[2]: array for name, array in arrays.items() if name.startswith('0/encoder.0/')}
    attention = one.recording.attentions[0]
    weights, content = (np.asarray(each)[0] for each in (attention.weights(), attention.logits().content))
    np.testing.assert_allclose(own['weights'].sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(own['weights'][:, 1, 0], weights[:, 3:6, :3].sum(-1).mean(-1), atol=1e-5)
    np.testing.assert_allclose(own['weights'][:, 3, 3], weights[:, 9, 9], atol=1e-5)
    lower = np.tri(3, dtype=bool)
    np.testing.assert_allclose(own['content'][:, 1, 1], content[:, 3:6, 3:6][:, lower].mean(-1), atol=1e-5)
    np.testing.assert_array_equal(own['visible'][0], np.tri(4, dtype=bool))
    best = np.sort(weights, -1)[:, :, ::-1]
    count = own['strongest'].shape[2]
    np.testing.assert_allclose(own['strongest_weights'], best[:, :, :count], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(weights, own['strongest'].astype(int), 2), best[:, :, :count])
    assert page.write(tmp_path / 'probe.npz').exists()


def test_stacks_of_an_encoder_decoder(tmp_path):
    made = mha.EncoderDecoder(model('rope'), max_len=T, layers=1, position='alibi', rngs=nnx.Rngs(1))
    valid = jnp.array([[True] * 4 + [False] + [True] * 3 + [False] * 2])
    about, arrays = read(files.write(tmp_path / 'probe.npz', [recorded(made, valid=valid)]))
    places = [(each['name'], each['queries'], each['keys']) for each in about['recordings'][0]['attentions']]
    assert places[2:] == [('decoder.0', 'target', 'target'), ('cross.0', 'target', 'source')]
    assert arrays['0/cross.0/weights'].shape == (HEADS, 3, 4)
    assert [len(labels) for labels in about['recordings'][0]['tokens'].values()] == [4, 3]


def test_similarities_of_heads(tmp_path, monkeypatch):
    one = recorded(model('rope', causal=True))
    about, arrays = read(files.write(tmp_path / 'probe.npz', [one]))
    (expected,) = probes.similarity_of(one.recording)
    assert about['recordings'][0]['similarity'] == [
        {'stack': 'encoder', 'heads': [[0, 0], [0, 1], [1, 0], [1, 1]], 'order': expected.order}
    ]
    np.testing.assert_allclose(arrays['0/similarity.encoder/divergence'], expected.divergence, atol=1e-6)
    np.testing.assert_allclose(arrays['0/similarity.encoder/cka'], expected.cka, atol=1e-6)
    monkeypatch.setattr(files, 'MOST_COMPARED', (2 * HEADS) ** 2 * T**2 - 1)
    assert files.similarities(one) == ([], {})


def test_heads_of_a_pruned_model_keep_their_numbers(tmp_path):
    """A layer without heads is left out; the maps of the others are those of the whole model's first layer."""
    whole, made = model(heads=4, layers=3), model(heads=4, layers=3)
    one = recorded(heads.prune(made, heads.parse('0:0,2;1:0,1,2,3')))
    about, arrays = read(files.write(tmp_path / 'probe.npz', [one]))
    assert [(each['name'], each['heads']) for each in about['recordings'][0]['attentions']] == [
        ('encoder.0', [1, 3]),
        ('encoder.2', [0, 1, 2, 3]),
    ]
    places = [(0, 1), (0, 3), *((2, head) for head in range(4))]
    assert [(row['layer'], row['head']) for row in about['statistics']] == places
    weights = probes.record(whole, TOKENS).attentions[0].weights()[0]
    np.testing.assert_allclose(arrays['0/encoder.0/weights'], weights[jnp.array([1, 3])], atol=1e-6)
    assert probes.similarity_of(one.recording)[0].heads == places


@pytest.mark.slow
def test_two_thousand_tokens_are_below_two_megabytes(tmp_path):
    made = model('rope', layers=2, heads=4, max_len=2000, causal=False)
    tokens = jax.random.randint(jax.random.key(0), (1, 2000), 0, 5)
    path = files.write(tmp_path / 'probe.npz', [recorded(made, tokens)])
    assert page.write(path).stat().st_size < 2_000_000
    about, arrays = read(path)
    assert about['recordings'][0]['attentions'][0]['groups'] == [16, 16]
    assert arrays['0/encoder.0/strongest'].shape == (4, 2000, files.MOST_STRONGEST)


@pytest.mark.parametrize('heads', [8, 40, 144, 400])
def test_maps_of_any_number_of_heads_fit(heads):
    side, strongest = files._plan(heads, 2000, files.POOLED_BYTES)
    assert 4 * heads * (side**2 + 2000 * strongest) <= files.POOLED_BYTES


# ------------------------------------------------------------------------------------------------------------- command
@pytest.fixture(scope='module')
def run():
    return mha.load(RUN)


def test_recordings_of_two_runs_at_two_lengths(run):
    found = command.recordings(run, run, lengths='3,5')
    assert [(one.length, one.recording.tokens.shape[1]) for one in found] == [(3, 6), (3, 6), (5, 10), (5, 10)]
    (text,) = command.recordings(run, text='10210_____')
    assert text.length is None
    (example,) = command.recordings(run)
    assert example.length == 6
    (other,) = command.recordings(run, seed=1)
    assert other.recording.labels != example.recording.labels


def test_heads_are_removed_at_up_to_three_lengths(run):
    lengths = lambda rows: [*dict.fromkeys(row['length'] for row in rows)]  # noqa: E731
    rows = command.ablated(run, examples=2)
    heads = sum(len(attention.heads) for attention in command.recordings(run)[0].recording.attentions)
    assert lengths(rows) == [run.experiment.train_lengths[-1], run.experiment.eval_lengths[-1]]
    assert len(rows) == 2 * (1 + heads)
    assert lengths(command.ablated(run, '2-5', examples=2)) == [2, 3, 4]


def test_encodings_of_two_runs(run):
    found = command.drawn_encodings(run, run.variant(position='none'))
    assert [*found] == ['alibi', 'alibi, none']
    tokens = run.task.num_tokens(run.experiment.eval_lengths[-1])
    assert [one.coordinates.size for each in found.values() for one in each] == [tokens, tokens]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(text='1x'), "no symbol 'x' - it has 0 1"),
        (dict(text='  '), 'has no tokens'),
        (dict(text='1', lengths='4'), 'choose one'),
        (dict(lengths='4,x'), '--lengths'),
        (dict(lengths='1-100'), 'up to 6 lengths, not the 100'),
        (dict(lengths='2049'), 'up to 4,096 tokens, not 4,098 - give shorter --lengths'),
        (dict(text='1' * 4097), 'up to 4,096 tokens, not 4,097 - give a shorter text'),
    ],
    ids=str,
)
def test_what_a_page_cannot_show(run, options, message):
    with pytest.raises(UserError, match=message):
        command.recordings(run, **options)


def test_runs_that_read_other_tokens(run):
    others = [command.recordings(run, seed=seed)[0] for seed in (0, 1)]
    with pytest.raises(UserError, match='other tokens - choose a run on the same task'):
        command._alike(others)


@pytest.mark.parametrize(
    ('against', 'message'),
    [
        ('', '--against: give the directory'),
        ('nowhere', '--against: no run in nowhere'),
        ('7', r'--against: .* steps? .*, not of step 7'),
    ],
)
def test_second_runs(against, message):
    with pytest.raises(UserError, match=message):
        command.second(against, RUN)


def test_an_earlier_checkpoint():
    kept = sorted(int(path.name) for path in (RUN / 'checkpoints').iterdir() if path.name.isdecimal())
    earlier = command.second(str(kept[0]), RUN)
    assert earlier.step == kept[0]


@pytest.mark.slow
def test_the_command_writes_arrays_and_a_page(script, tmp_path):
    folder = shutil.copytree(RUN, tmp_path / 'run')
    done = script(
        'eval.py',
        f'--workdir={folder}',
        '--probe',
        '--lengths=3',
        f'--against={folder}',
        '--position=none',
        '--ablate',
        '--examples=8',
    )
    written = ('probe.npz', 'probe.html', 'positions.svg', 'positions_against.svg')
    assert done.stdout.split() == [str(folder / name) for name in written]
    about, _ = read(folder / 'probe.npz')
    assert {row['removed'] for row in about['ablations']} == {'none', 'head'}
    assert {(row['length'], row['examples']) for row in about['ablations']} == {(3, 8)}
    assert [each['position'] for each in about['recordings']] == ['none', 'alibi']
    assert about['command'].endswith('--ablate --examples=8')
    done = script('eval.py', f'--workdir={folder}', '--probe', '--lengths=1-5', '--ablate', '--examples=2')
    assert done.stdout.startswith('note: heads are removed at the first 3 lengths, not at the other 2\n')
    before = (folder / 'probe.html').read_bytes()
    for flags, message in (
        (['--probe=x'], "no symbol 'x'"),
        (['--probe=1', '--lengths=3'], 'choose one'),
        (['--probe', 'text'], "unexpected argument 'text'"),
        (['--probe', '--generate=1'], '--generate does not go with --probe'),
        (['--probe', '--examples=3'], 'add --ablate'),
        (['--against=3'], '--against is for --probe'),
        (['--ablate'], '--ablate is for --probe'),
        (['--probe', '--against=3'], 'not of step 3'),
        (['--probe', '--position=ropee'], "did you mean 'rope'"),
        (['--probe', '--lengths=9999'], 'shorter --lengths'),
    ):
        failed = script('eval.py', f'--workdir={folder}', *flags, code=2)
        assert message in failed.stderr
        assert failed.stderr.count('\n') == 1
    assert (folder / 'probe.html').read_bytes() == before
