"""Promises of documents and configs: their examples run, and cells of every sweep can be built."""

import functools
import re
import runpy
from pathlib import Path

import jax
import pytest

from configs import common, quickstart
from mha import positions, spec, tasks
from mha.run.build import build

ROOT = Path(__file__).parent.parent
CONFIGS = sorted(path for path in ROOT.glob('configs/**/*.py') if path.stem not in ('common', 'sweeps'))
PUBLISHED = [path for path in CONFIGS if path.parent.name == 'published']

DOCUMENTS = [pytest.param(path, id=path.name) for path in (ROOT / 'README.md', *sorted(ROOT.glob('docs/**/*.md')))]
KEYS = spec.flatten(common.get_config().to_dict())


def example(document, path):
    """The first Python block after the mention of `path`."""
    text = (ROOT / document).read_text()
    return re.search(rf'`{re.escape(path)}`.*?```python\n(.*?)```', text, re.DOTALL)[1]


@pytest.mark.parametrize('path', DOCUMENTS)
def test_commands_and_links_of_the_documents(path):
    """Files exist, scripts have the flags, configs have the keys, and a document says how many schemes there are."""
    text = path.read_text(encoding='utf-8')
    for link in re.findall(r'(?:\]\(|src=")([\w./-]+\.\w+)[#)"]', text):
        assert (path.parent / link).exists(), link
    for key in re.findall(r'--config\.([\w.]+\w)', text):
        assert key in KEYS, key
    for file in re.findall(r'\b(?:configs|benchmarks)/[\w/]+\.py\b|(?<=--config=)[\w/.]+', text):
        assert (ROOT / file).exists() or file == 'configs/rope_base.py', file
    for script, flags in re.findall(r'\b(train|eval|sweep|compare)\.py((?: +(?:--)?[^\s`]+)*)', text):
        source = (ROOT / f'{script}.py').read_text()
        for flag in re.findall(r'--(\w+)(?![\w.])', flags):
            assert re.search(rf"DEFINE_\w+\(\s*'{flag}'", source), f'{script}.py --{flag}'
    for count, what in re.findall(r'\[(\d+) (?:position )?(schemes|tasks)\]', text):
        assert int(count) == len({'schemes': positions, 'tasks': tasks}[what].names())


def test_scheme_of_the_documents_is_one_file(tmp_path, monkeypatch):
    (tmp_path / 'staircase.py').write_text(example('docs/adding.md', 'mha/positions/staircase.py'))
    monkeypatch.setattr(positions, '__path__', [*positions.__path__, str(tmp_path)])
    assert 'staircase' in positions.names()
    for text in ('staircase', 'randomize(max_position=256)|staircase(step=2)|rope'):
        config = quickstart.get_config()
        config.model.position = text
        build(config.to_dict())


def test_task_of_the_documents_is_one_file(tmp_path, monkeypatch):
    (tmp_path / 'more_ones.py').write_text(example('docs/adding.md', 'mha/tasks/more_ones.py'))
    monkeypatch.setattr(tasks, '__path__', [*tasks.__path__, str(tmp_path)])
    config = quickstart.get_config()
    config.task = 'more_ones'
    run = build(config.to_dict())
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
    build(config.to_dict())


SLOW = [pytest.param(path, marks=[pytest.mark.slow] * (path.stem != 'quickstart'), id=path.stem) for path in CONFIGS]


def forms(path):
    """Config and cells of an experiment, in each of its sizes."""
    module = runpy.run_path(str(path))
    assert f'--config={path.relative_to(ROOT)}' in module['__doc__']
    for arguments in ((), ('small',)) if path in PUBLISHED else ((),):
        names = [name for name in module if name == 'sweep' or name.startswith('sweep_')]
        cells = [cell for name in names for cell in module[name](*arguments)]
        assert len({str(cell) for cell in cells}) == len(cells) > 1
        yield lambda arguments=arguments: module['get_config'](*arguments), cells


def build_cell(get_config, cell, layers=None):
    """Builds it with at most `layers` layers, unless the cell itself sets their number."""
    config = get_config()
    config.update_from_flattened_dict(cell)
    if layers and 'model.layers' not in cell:
        config.model.layers = min(config.model.layers, layers)
    return build(config.to_dict())


def covering(cells):
    """Few cells that have every value of every key: always the one with the most new values."""
    values = [{(key, str(value)) for key, value in cell.items() if key != 'seed'} for cell in cells]
    missing = set().union(*values)
    while missing:
        best = max(range(len(cells)), key=lambda index: len(values[index] & missing))
        missing -= values[best]
        yield cells[best]


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """Data are prepared once for all configs, and each task is made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MHA_CACHE', str(tmp_path_factory.mktemp('cache')))
        patch.setattr(tasks, 'make', functools.cache(tasks.make))
        yield


@pytest.mark.usefixtures('prepared')
@pytest.mark.parametrize('path', SLOW)
def test_every_value_of_every_sweep_builds(path):
    """The config itself in its full depth, its cells with two layers: the others would be like the second."""
    for get_config, cells in forms(path):
        build_cell(get_config, {})
        for cell in covering(cells):
            build_cell(get_config, cell, layers=2)


@pytest.mark.usefixtures('prepared')
@pytest.mark.parametrize('path', [pytest.param(path, id=path.stem) for path in PUBLISHED])
def test_configs_of_published_tables(path):
    """They take a size, their cells set what there is, and one small cell builds; the slow test above builds more."""
    full, small = forms(path)
    assert full[0]().to_dict() != small[0]().to_dict()
    for _, cells in (full, small):
        assert {key for cell in cells for key in cell} <= {*KEYS}
    build_cell(small[0], small[1][-1])
    with pytest.raises(ValueError, match="the size is 'full' or 'small', not 'tiny'"):
        runpy.run_path(str(path))['get_config']('tiny')


def test_quickstart_shows_at_least_five_schemes():
    assert len({cell['model.position'] for cell in quickstart.sweep()}) >= 5


def test_promises_name_tests_that_there_are():
    text = (ROOT / 'docs' / 'reliability.md').read_text()
    named = set(re.findall(r'`(tests/[\w/]+\.py)(?:::(\w+))?`', text))
    assert len(named) > 30
    for file, name in named:
        assert re.search(rf'^def {name or "test_"}', (ROOT / file).read_text(), re.MULTILINE), (file, name)
    stars = re.findall(r'`(tests/[\w/]+\.py)(?:::(\w+))?`\*', text)
    for file, name in named:
        source = (ROOT / file).read_text()
        before = source.partition(f'def {name}(')[0].rpartition('\n\n\n')[2] if name else source
        slow = '@pytest.mark.slow' in before if name else 'tests/faults/' in file
        assert slow == ((file, name) in stars), (file, name)
