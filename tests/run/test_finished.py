"""Finished runs as a notebook meets them, on a small run that an earlier version of the code has made."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import mha
from mha import tasks
from mha.model import generation
from mha.run import finished, translation, versions, workdir
from mha.spec import UserError

STORED = Path(__file__).parents[1] / 'runs' / 'alibi'


@pytest.fixture(scope='module')
def run():
    return mha.load(STORED)


def test_a_stored_run_gives_its_numbers_again(run):
    """Metrics of the extrapolation.csv that the earlier version wrote."""
    for one, other in zip(run.evaluate(), run.rows, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_a_variant_has_the_same_weights(run):
    variant = run.variant(position="alibi(variant='symmetric')", lengths=[3, 5], examples=4)
    rows = variant.evaluate()
    assert [(row['length'], row['examples']) for row in rows] == [(3, 4), (5, 4)]
    assert variant.config['task'] == run.config['task'] == 'bucket_sort'
    for one, other in zip(jax.tree.leaves(variant.params), jax.tree.leaves(run.params), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(UserError, match='has 3 symbols, not the 6 that the model was trained on'):
        run.variant(task='even_pairs')
    with pytest.raises(UserError, match=r"parameters of position 't5'|cannot take over"):
        run.variant(position='t5')


def test_what_answers_at_once_continues_no_text(run):
    with pytest.raises(UserError, match='continues no text'):
        run.generate('10 2')
    with pytest.raises(UserError, match='does not label texts'):
        run.classify('10 2')


@pytest.mark.parametrize(
    ('prompts', 'options', 'message'),
    [
        ('\udcff', {}, r"prompts must be UTF-8, not '\\udcff'"),
        ('x', dict(seed=2**63), 'stream: seed must be from 0 to 4,294,967,295'),
        ('x', dict(max_length=0), 'stream: max_length must be at least 1'),
    ],
)
def test_mistakes_of_a_generation(run, prompts, options, message):
    with pytest.raises(UserError, match=message):
        run.generate(prompts, **options)


@pytest.mark.parametrize('options', [dict(examples=0), dict(examples=-1), dict(max_length=0), dict(beams=0)])
def test_mistakes_of_a_translation(run, options):
    with pytest.raises(UserError, match=f'^measure: {next(iter(options))} must be at least 1'):
        translation.measure(run, **options)


def test_texts_grow_and_end_before_a_string(run, monkeypatch):
    """Pieces of a text as a model would give them: a character and the string that ends it are split between two."""
    pieces = [list(piece.encode()) for piece in ('a', 'b')] + [[0xC3], [0xA9], [10], [10, 99]]
    whole = [token for piece in pieces for token in piece]
    made = ((np.array([piece]), -1.0 * np.array([piece])) for piece in pieces)
    monkeypatch.setattr(finished.generation, 'stream', lambda *args, **options: made)
    monkeypatch.setattr(finished.Finished, 'task', tasks.make(f'lm({__file__!r})', causal=True))
    *growing, (last,) = run.stream('x', until='\n\n')
    assert [one.text for (one,) in growing] == ['a', 'ab', 'ab', 'abé', 'abé', 'abé']
    assert last == finished.Continuation('abé', whole[:4], [-1.0 * token for token in whole[:4]])
    made = iter([(np.array([whole]), np.zeros((1, len(whole))))])
    assert run.generate('x') == 'abé\n\nc'
    made = iter([(np.array([[*whole[:3], generation.ENDED]]), np.zeros((1, 4)))])
    (one,) = run.continuations(['x'])
    assert one == finished.Continuation('ab' + chr(0xFFFD), whole[:3], [0.0] * 3)


def test_attention_weights_as_an_array(run):
    batch = run.task.batch(jax.random.key(0), 2, 5, 5)
    weights = run.model.attention_weights(batch.tokens)
    assert weights.shape == (1, 2, 2, 10, 10)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)


def test_what_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'no run in .* \(it has no config\.json\)'):
        mha.load(tmp_path)
    shutil.copytree(STORED, tmp_path / 'run')
    (tmp_path / 'run' / 'config.json').write_text('{"task": 5}')
    with pytest.raises(UserError, match=r"config\.json is not the config of a run: 'seed' is missing"):
        mha.load(tmp_path / 'run')
    (tmp_path / 'run' / 'summary.json').unlink()
    with pytest.raises(UserError):
        mha.load(tmp_path / 'run')
    with pytest.raises(UserError, match='has members 0 to 0, not 1'):
        mha.load(STORED, member=1)


def test_keys_that_came_later_take_the_defaults_of_today():
    from configs import common

    defaults = workdir.flatten(common.get_config().to_dict())
    assert {key: defaults[key] for key in versions.ADDED} == versions.ADDED
    config = versions.current(json.loads((STORED / 'config.json').read_text()))
    assert sorted(workdir.flatten(config)) == sorted(key for key in defaults)


@pytest.mark.parametrize(
    ('task', 'data', 'today'),
    [
        ('text', {'text': ''}, 'lm'),
        ('text', {'text': 'a/*.txt'}, "lm(data='a/*.txt')"),
        ('text(mask_rate=0.3)', {'text': 'a'}, "lm(data='a', mask_rate=0.3)"),
        ("text('b')", {}, "lm('b')"),
        ('parity_check', {}, 'parity_check'),
    ],
)
def test_arguments_of_a_task_move_into_its_spec(task, data, today):
    config = versions.current({'task': task, 'data': data, 'model': {'readout': 'pair'}})
    added = {key.split('.')[1]: value for key, value in versions.ADDED.items() if key.startswith('model.')}
    assert config == {'task': today, 'model': {'readout': 'token', **added}}


def test_names_of_evaluations_are_short_and_unique():
    name = workdir.evaluation_name
    assert name((40, 80, 160), 512) == 'evaluation_40_80_160_512-examples.csv'
    assert name((3, 4), 8, "odds_first(order='released')", 'learned') == (
        'evaluation_3_4_8-examples_odds_first_order=_released_learned.csv'
    )
    many = [tuple(n * n + i for n in range(30)) for i in (1, 2)]
    asked = [((*lengths[:-1], 1107), 8) for lengths in many]
    asked += [((4,), 8, f"text('a{sign}b.txt')") for sign in '/_'] + [((4,), 8, None, 'rope|' * 80 + 'rope')]
    names = [name(*given) for given in asked]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 240
