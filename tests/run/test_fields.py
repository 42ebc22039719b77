"""Fields of the files of a run: a value of another kind ends in one line that names the file, the field, the kind."""

import json
import math
from pathlib import Path

import pytest

from mha.run import fields, manifest, population, workdir
from mha.spec import UserError

STORED = Path(__file__).parents[1] / 'runs' / 'alibi'
HEAD = 'seed,length,accuracy,exact_match,loss,baseline,examples'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'seed': None}, "'seed' is missing"),
        ({'seed': True}, "'seed' must be a whole number, not True"),
        ({'seed': -1}, "'seed' must be a whole number, not -1"),
        ({'task': 5}, "'task' must be text, not 5"),
        ({'train': []}, "'train' must be a section, not []"),
        ({'train': {'steps': 0}}, "'train.steps' must be a whole number from 1, not 0"),
        ({'train': {'lengths': 5}}, "'train.lengths' must be text, not 5"),
        ({'eval': {'examples': 1e308}}, "'eval.examples' must be a whole number from 1, not 1e+308"),
        ({'eval': {'x': {'y': 1}}}, "'eval' must be a section, not {'x': {'y': 1}}"),
        ({'model': {'position': ['rope']}}, "'model.position' must be text, not ['rope']"),
        ({'model': {'causal': 'yes'}}, "'model.causal' must be true or false, not 'yes'"),
        ({'optimizer': {'learning_rate': -1}}, "'optimizer.learning_rate' must be a number from 0, not -1"),
        ({'model': {'dim': 10**30}}, "'model' must be a section"),
        ({'=1+1': 2}, "'=1+1' is no name of a setting"),
        ({'model': {'\x1b[2J': 2}}, 'no name of a setting'),
    ],
)
def test_a_config(tmp_path, change, message):
    config = json.loads((STORED / 'config.json').read_text())
    (tmp_path / 'config.json').write_text(json.dumps(config | change))
    with pytest.raises(UserError) as raised:
        workdir.load_config(tmp_path)
    assert str(raised.value).startswith(f'{tmp_path / "config.json"} is not the config of a run: ')
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'status': 3}, "'status' must be text, not 3"),
        ({'parameters': -5}, "'parameters' must be a whole number from 0, not -5"),
        ({'parameters': math.nan}, "'parameters' must be a whole number from 0, not nan"),
        ({'trained_lengths': [1]}, "'trained_lengths' must be the shortest and the longest length, not [1]"),
        ({'trained_lengths': [1, math.inf]}, "'trained_lengths' must be the shortest and the longest length"),
        ({'diverged': {'seed': 1}}, "'diverged' must be a list of members, not {'seed': 1}"),
        ({'diverged': [{'seed': []}]}, "'diverged' must be a list of members"),
        ({'metric': ['accuracy']}, "'metric' must be text, not ['accuracy']"),
    ],
)
def test_a_summary(tmp_path, change, message):
    (tmp_path / 'summary.json').write_text(json.dumps({'status': 'finished', **change}))
    with pytest.raises(UserError) as raised:
        workdir.status(tmp_path)
    assert str(raised.value).startswith(f'{tmp_path / "summary.json"}: {message}')


@pytest.mark.parametrize(
    ('column', 'text', 'message'),
    [
        ('accuracy', 'nan', "'accuracy' must be from 0 to 1, not nan"),
        ('accuracy', '-1', "'accuracy' must be from 0 to 1, not -1"),
        ('exact_match', '1.5', "'exact_match' must be from 0 to 1, not 1.5"),
        ('baseline', 'inf', "'baseline' must be from 0 to 1, not inf"),
        ('loss', '-0.5', "'loss' must be from 0, or nan, not -0.5"),
        ('length', '-1', "'length' must be a whole number from 1 to 10,000,000, not -1"),
        ('length', 'inf', "'length' must be a whole number from 1 to 10,000,000, not inf"),
        ('length', '1e308', "'length' must be a whole number from 1 to 10,000,000, not 1e+308"),
        ('length', '', "'length' is missing"),
        ('examples', '0', "'examples' must be a whole number from 1, not 0"),
        ('examples', 'many', "'examples' must be a whole number from 1, not 'many'"),
        ('seed', '9' * 5000, "'seed' must be a whole number, not '9999"),
    ],
)
def test_results(tmp_path, column, text, message):
    row = dict(zip(HEAD.split(','), ('0', '4', '0.5', '0', 'nan', '0.25', '8'), strict=True))
    path = tmp_path / 'extrapolation.csv'
    path.write_text(f'{HEAD}\n{",".join(row.values())}\n')
    (whole,) = workdir.read_rows(path)
    assert math.isnan(whole.pop('loss'))
    assert whole == {'seed': 0, 'length': 4, 'accuracy': 0.5, 'exact_match': 0, 'baseline': 0.25, 'examples': 8}
    path.write_text(f'{HEAD}\n{",".join({**row, column: text}.values())}\n')
    with pytest.raises(UserError) as raised:
        workdir.read_rows(path)
    assert str(raised.value).startswith(f'{path}, record 1: {message}')


def test_defaults_of_today_are_values_that_fields_may_hold(tmp_path):
    from configs import common

    (tmp_path / 'config.json').write_text(json.dumps(common.get_config().to_dict(), default=list))
    assert fields.read_config(tmp_path / 'config.json')['model']['dim'] == 64


def test_cells_outside_of_a_sweep_are_no_cells(tmp_path):
    names = ('a', '../b', '/etc', '', '.', 'c\x1b', 'd' * 300, 'e')
    lines = [json.dumps({'cell': name, 'overrides': {'seed': 0}}) for name in names]
    lines += ['{"cell": "f", "overrides": {"seed": [[1]]}}', '{"cell": "g"}', '[' * 10**4]
    (tmp_path / 'manifest.jsonl').write_text('\n'.join(lines))
    assert list(manifest.read(tmp_path)) == ['a', 'e']
    (tmp_path / 'failures.jsonl').write_text('{"cell": "a", "error": [3]}\n{"cell": "e", "error": ["x", "y"]}\n')
    assert manifest.failures(tmp_path) == {'e': 'y'}


def test_a_population_that_fills_the_memory_is_refused():
    values = list(range(2**10))
    with pytest.raises(UserError, match='a population has at most 16,384 members, not 1,048,576'):
        population.members({'seed': 0, 'population': {'seed': values, 'learning_rate': values}})
