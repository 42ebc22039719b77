"""Promises of documents and configs: their examples run, and every cell of every sweep can be built."""

import re
import runpy
import sys
from pathlib import Path

import jax
import pytest

from configs import quickstart
from mha import positions, tasks
from mha.run.experiment import Experiment

ROOT = Path(__file__).parent.parent
CONFIGS = sorted(path for path in ROOT.glob('configs/*.py') if path.stem != 'common')


def example(document, path):
    """The first Python block after the mention of `path`."""
    text = (ROOT / document).read_text()
    return re.search(rf'`{re.escape(path)}`.*?```python\n(.*?)```', text, re.DOTALL)[1]


@pytest.mark.parametrize('document', ['README.md', 'docs/adding.md'])
def test_scheme_of_the_documents_is_one_file(document, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, 'mha.positions.staircase', raising=False)  # the other document's
    (tmp_path / 'staircase.py').write_text(example(document, 'mha/positions/staircase.py'))
    monkeypatch.setattr(positions, '__path__', [*positions.__path__, str(tmp_path)])
    assert 'staircase' in positions.names()
    for spec in ('staircase', 'randomize(max_position=256)|staircase(step=2)|rope'):
        config = quickstart.get_config()
        config.model.position = spec
        Experiment.build(config.to_dict())


def test_task_of_the_documents_is_one_file(tmp_path, monkeypatch):
    (tmp_path / 'majority.py').write_text(example('docs/adding.md', 'mha/tasks/majority.py'))
    monkeypatch.setattr(tasks, '__path__', [*tasks.__path__, str(tmp_path)])
    config = quickstart.get_config()
    config.task = 'majority'
    run = Experiment.build(config.to_dict())
    batch = run.task.batch(jax.random.key(0), 16, 5, 8)
    assert (batch.targets[:, 5] == (batch.tokens[:, :5].sum(-1) > 2)).all()


def test_experiment_of_the_documents(tmp_path):
    (tmp_path / 'rope_base.py').write_text(
        '"""Does the base' + (ROOT / 'docs/adding.md').read_text().split('"""Does the base')[1].split('```')[0]
    )
    module = runpy.run_path(str(tmp_path / 'rope_base.py'))
    cells = list(module['sweep']())
    assert len(cells) == 9
    config = module['get_config']()
    config.update_from_flattened_dict(cells[-1])
    Experiment.build(config.to_dict())


SLOW = [pytest.param(path, marks=[pytest.mark.slow] * (path.stem != 'quickstart'), id=path.stem) for path in CONFIGS]


@pytest.mark.parametrize('path', SLOW)
def test_every_cell_of_every_config_builds(path, tmp_path, monkeypatch):
    monkeypatch.setenv('MHA_CACHE', str(tmp_path))
    module = runpy.run_path(str(path))
    assert f'--config=configs/{path.name}' in module['__doc__']
    Experiment.build(module['get_config']().to_dict())
    cells = list(module['sweep']())
    assert len({str(cell) for cell in cells}) == len(cells) > 1
    for cell in (cell for cell in cells if cell.get('seed', 0) == 0):
        config = module['get_config']()
        config.update_from_flattened_dict(cell)
        Experiment.build(config.to_dict())


def test_quickstart_shows_at_least_five_schemes():
    assert len({cell['model.position'] for cell in quickstart.sweep()}) >= 5
