"""Published tables: what they say can be read, built and compared."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from configs import common
from mha import positions, spec, tasks
from mha.spec import UserError
from mha.views.report import published

ROOT = Path(__file__).parents[3]
KEYS = spec.flatten(common.get_config().to_dict())
TABLES = published.names()


def test_tables():
    assert {'ruoss2023', 'kazemnejad2023', 'press2022', 'chi2022', 'tay2021', 'vaswani2017', 'huang2024'} <= {*TABLES}
    with pytest.raises(UserError, match=r"unknown published table 'ruos2023' - did you mean 'ruoss2023'\? .choices: "):
        published.load('ruos2023')


@pytest.mark.parametrize('name', TABLES)
def test_every_table_is_whole(name):
    table = published.load(name)
    assert table.rows
    assert table.title
    assert table.authors
    assert table.protocol.endswith('.')
    assert len(table.arxiv) == 10
    assert not table.config or (ROOT / 'configs' / 'published' / f'{table.config}.py').exists()
    assert {*table.recalled} <= {*table.settings, *(key for own in table.tasks.values() for key in own)}
    assert {*table.tasks} <= {row.task_label for row in table.rows}
    cells = [(row.task_label, row.scheme_label, str(row.settings), row.lengths, row.aggregation) for row in table.rows]
    assert len({*cells}) == len(cells)
    for row in table.rows:
        assert row.mark in published.MARKS
        assert row.aggregation in ('mean', 'maximum', 'one run')
        assert row.source
        assert (row.low is None) == (row.high is None)
        assert row.low is None or row.low <= row.value <= row.high
        if row.metric in ('accuracy', 'exact_match'):
            assert 0 <= row.value <= 1
        else:
            assert row.metric in ('perplexity', 'bleu')
        assert {*table.settings_of(row)} <= {*KEYS}


@pytest.mark.parametrize('name', TABLES)
def test_specs_are_of_tasks_and_schemes_that_there_are(name):
    table = published.load(name)
    causal = table.settings.get('model.causal', False)
    dims = positions.Dims(64, 8, 8, 300, causal)
    for text in {row.scheme for row in table.rows if row.scheme}:
        positions.make(text, dims, rngs=nnx.Rngs(0))
    for text in {row.task for row in table.rows if row.task} - {'scan', 'bytes_classification', 'bytes_retrieval'}:
        tasks.make(text, causal=causal)


def value(name, task, scheme):
    (row,) = [row for row in published.load(name).rows if (row.task_label, row.scheme_label) == (task, scheme)]
    return row.value


def test_numbers_of_tables():
    """Cells, and the means that the papers print."""
    table = published.load('ruoss2023')
    assert len(table.rows) == 15 * 11
    means = {}
    for row in table.rows:
        means.setdefault(row.scheme_label, []).append(row.value)
    best = {False: np.zeros(15), True: np.zeros(15)}
    for label, values in means.items():
        best[label.startswith('Randomized')] = np.maximum(best[label.startswith('Randomized')], values)
    assert np.mean(means['Randomized Relative']) == pytest.approx(0.658, abs=5e-4)
    assert np.mean(best[True] - best[False]) == pytest.approx(0.120, abs=1e-3)  # the abstract's 12.0 %
    assert value('ruoss2023', 'Missing Duplicate', 'Randomized RoPE') == 0.887
    assert value('kazemnejad2023', 'Copy (cmc)', 'NoPE') == 0.3054
    assert value('tay2021', 'ListOps', 'Transformer') == 0.3637


def test_rows_like_those_of_a_run():
    """Arguments may differ, parts of the spec may not."""
    table = published.load('ruoss2023')
    (row,) = table.like('bucket_sort', 'randomize(max_position=256)|rope')
    assert (row.scheme_label, row.value) == ('Randomized RoPE', 0.996)
    assert row.scheme == "randomize(max_position=2048, redraw='layer')|rope"
    assert table.like('bucket_sort', 'rope|alibi') == []
    crasp = published.load('huang2024')
    assert {row.task_label for row in crasp.like('majority(symbols=26)', 'none')} == {'Majority'}
    (nearest,) = {row.task_label for row in crasp.like('copying(symbols=30, distinct=True, bos=True)', 'none')}
    assert nearest == 'Copy Unique'
    for task in ("regular(language='tomita1')", 'majority(symbols=5)', 'copying', 'copying(symbols=26, distinct=True)'):
        assert crasp.like(task, 'none') == []
    assert {row.lengths for row in published.load('chi2022').like('', 'kerple')} >= {(512,), (16384,)}


def config_of(table, **changes):
    """A config with the settings of a table."""
    config = common.get_config()
    for key, theirs in table.settings.items():
        changes = {key: theirs[0] if isinstance(theirs, list) else theirs, **changes}
    config.update_from_flattened_dict(changes)
    return config.to_dict()


def test_differences_of_settings():
    table = published.load('ruoss2023')
    assert published.differences(table, config_of(table)) == []
    found = published.differences(table, config_of(table, **{'train.steps': 10_000, 'optimizer.learning_rate': 1e-3}))
    assert found == [
        ('train.steps', 2_000_000, 10_000),
        ('optimizer.learning_rate', [1e-4, 3e-4, 5e-4], 1e-3),
    ]
    assert published.differences(table, spec.flatten(config_of(table))) == []


def test_what_means_the_same_is_no_difference():
    """Unset widths, spellings of ranges and specs, and one of the learning rates that the authors tried, or all."""
    table = published.load('ruoss2023')
    config = config_of(table, **{'train.lengths': '1-20,21-40', 'optimizer.learning_rate': 5e-4})
    config['model']['mlp_dim'] = None
    config['optimizer']['name'] = ' adam '
    assert published.differences(table, config) == []
    config['population']['learning_rate'] = (5e-4, 1e-4, 3e-4)
    assert published.differences(table, config) == []
    config['population']['learning_rate'] = (5e-4, 1e-3)
    assert [key for key, _, _ in published.differences(table, config)] == ['optimizer.learning_rate']


def test_differences_from_a_row():
    """Those of its task and of the row itself come on top."""
    table = published.load('tay2021')
    row = next(row for row in table.rows if row.task_label == 'ListOps' and row.scheme_label == 'Performer')
    config = config_of(table, task='listops(released=True)')
    found = {key: (theirs, ours) for key, theirs, ours in published.differences(table, config, row)}
    assert found['model.core'] == ("linear(features='performer')", 'auto')
    assert found['model.dim'] == (512, 64)
    assert 'task' not in found
    (row,) = published.load('ruoss2023').like('bucket_sort', 'rope')
    config = config_of(table, task='bucket_sort')
    assert ('model.position', 'rope', 'none') in published.differences(published.load('ruoss2023'), config, row)


@pytest.mark.parametrize('name', [name for name in TABLES if published.load(name).config])
def test_the_config_of_a_table_has_its_settings(name):
    table = published.load(name)
    config = runpy.run_path(str(ROOT / 'configs' / 'published' / f'{table.config}.py'))['get_config']()
    assert published.differences(table, config.to_dict()) == []


def test_every_row_of_table_1_is_a_cell_of_its_config():
    """With the same settings, but for lengths within the trained ones, which are evaluated beside."""
    table = published.load('ruoss2023')
    module = runpy.run_path(str(ROOT / 'configs' / 'published' / f'{table.config}.py'))
    cells = list(module['sweep']())
    assert len(cells) == len(table.rows)
    for cell in cells[:11]:
        config = module['get_config']()
        config.update_from_flattened_dict(cell)
        rows = [row for row in table.rows if (row.task, row.scheme) == (cell['task'], cell['model.position'])]
        assert [published.differences(table, config.to_dict(), row) for row in rows] == [[]]


def test_the_config_of_listops_has_the_settings_of_that_task():
    table = published.load('tay2021')
    row = next(row for row in table.rows if (row.task_label, row.scheme_label) == ('ListOps', 'Transformer'))
    config = runpy.run_path(str(ROOT / 'configs' / 'published' / f'{table.config}.py'))['get_config']()
    assert published.differences(table, config.to_dict(), row) == []


def test_configs_of_older_versions_have_the_defaults_of_later_keys():
    table = published.load('ruoss2023')
    config = config_of(table)
    del config['model']['init']
    assert published.differences(table, config) == [('model.init', 'haiku', 'default')]


def test_reading_needs_no_jax():
    code = (
        "from mha.views.report import published; published.load('chi2022'); import sys; assert 'jax' not in sys.modules"
    )
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
