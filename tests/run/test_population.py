"""Populations: their members, mistakes in configs, and the reading of their results."""

import csv
import json

import pytest

from configs import common
from mha.run import population
from mha.spec import UserError
from mha.views.report import comparison as comparing
from mha.views.report import left_out, runs, table


def config(**varied):
    found = common.get_config()
    found.population = varied
    return found.to_dict()


@pytest.mark.parametrize(
    ('varied', 'expected'),
    [
        ({}, [{'seed': 7}]),
        ({'seed': range(2)}, [{'seed': 0}, {'seed': 1}]),
        ({'learning_rate': (0.1, 1)}, [{'seed': 7, 'learning_rate': 0.1}, {'seed': 7, 'learning_rate': 1}]),
        (
            {'seed': [1, 2], 'dropout_rate': (0.0, 0.5)},
            [{'seed': seed, 'dropout_rate': rate} for seed in (1, 2) for rate in (0.0, 0.5)],
        ),
        ({'seed': None, 'weight_decay': (0.1,)}, [{'seed': 7, 'weight_decay': 0.1}]),
    ],
    ids=str,
)
def test_members_are_all_combinations(varied, expected):
    assert population.members({**config(**varied), 'seed': 7}) == expected


@pytest.mark.parametrize(
    ('varied', 'words'),
    [
        ({'sed': (1, 2)}, "unknown .*'sed'.*seed"),
        ({'seed': 3}, 'population.seed must be a sequence of numbers such as .*, not 3'),
        ({'seed': '0,1'}, "population.seed must be a sequence of numbers such as .*, not '0,1'"),
        ({'seed': (0, 0.5)}, 'population.seed must hold whole numbers, each once'),
        ({'seed': (1, 1)}, 'each once, such as .*, not'),
        ({'learning_rate': ()}, 'population.learning_rate must hold numbers'),
        ({'learning_rate': ('fast',)}, 'population.learning_rate must hold numbers'),
    ],
    ids=str,
)
def test_mistakes_are_named(varied, words):
    with pytest.raises(UserError, match=words):
        population.members({'seed': 0, 'population': varied})


def test_a_member_alone_has_a_config_of_its_own():
    whole = config(seed=(1, 2), learning_rate=(0.1, 0.2), dropout_rate=(0.3,))
    own = population.config_of(whole, {'seed': 2, 'learning_rate': 0.2, 'dropout_rate': 0.3})
    assert (own['seed'], own['optimizer']['learning_rate'], own['model']['dropout_rate']) == (2, 0.2, 0.3)
    assert population.members(own) == [{'seed': 2}]
    assert whole['optimizer']['learning_rate'] == common.get_config().optimizer.learning_rate


@pytest.fixture
def workdir(tmp_path):
    """Two seeds by two learning rates; the second seed diverged at the larger one."""
    whole = config(seed=(1, 2), learning_rate=(0.1, 0.2))
    whole['train']['lengths'] = '1-4'
    (tmp_path / 'config.json').write_text(json.dumps(whole))
    lost = {'seed': 2, 'learning_rate': 0.2}
    (tmp_path / 'summary.json').write_text(json.dumps({'status': 'finished', 'diverged': [lost]}))
    with (tmp_path / 'extrapolation.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow([*runs.COLUMNS, 'learning_rate'])
        for seed, rate, accuracy in ((1, 0.1, 0.5), (1, 0.2, 0.9), (2, 0.1, 0.7)):
            for length in (4, 8):
                writer.writerow([seed, length, accuracy, 0, 1, 0.2, 64, rate])
    return tmp_path


def test_members_become_rows_of_a_table(workdir):
    found = runs.read(workdir)
    assert [(run.setting('optimizer.learning_rate'), run.status) for run in found] == [
        ('0.1', 'finished'),
        ('0.2', 'finished'),
        ('0.2', 'diverged: seed=2, learning_rate=0.2'),
    ]
    comparison = comparing.compare([workdir])
    assert comparison.keys == ('optimizer.learning_rate',)
    assert {row.labels: row.seeds for row in comparison.rows} == {('0.1',): (1, 2), ('0.2',): (1,)}
    assert {row.labels: row.values.mean() for row in comparison.rows} == pytest.approx({('0.1',): 0.6, ('0.2',): 0.9})
    assert 'diverged: seed=2' in str(left_out.grouped(comparison.left_out))


def test_the_score_of_a_population_is_the_mean_over_members(workdir):
    assert table.scores(runs.read(workdir))['score'] == pytest.approx((0.5 + 0.9 + 0.7) / 3)


def test_a_summary_names_what_members_vary(workdir):
    assert 'learning_rate' in table.summarise(runs.read(workdir))
