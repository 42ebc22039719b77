"""The script itself: what it prints, and how mistakes end."""

import csv
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mha.spec import UserError
from mha.views.report import page
from mha.views.report.comparison import compare

ROOT = Path(__file__).parents[3]


@pytest.fixture
def run(script):
    return functools.partial(script, 'compare.py')


@pytest.fixture
def grid(tmp_path):
    """One finished and one unfinished run."""
    for name, status in {'a': 'finished', 'b': 'running'}.items():
        folder = tmp_path / 'cells' / name
        folder.mkdir(parents=True)
        config = {'seed': 0, 'task': 'even_pairs', 'model': {'position': 'rope'}, 'train': {'lengths': '1-4'}}
        (folder / 'config.json').write_text(json.dumps(config))
        (folder / 'summary.json').write_text(json.dumps({'status': status}))
        rows = 'seed,length,accuracy,exact_match,loss,baseline,examples\n0,4,1,1,0,.5,8\n0,8,.75,.5,1,.5,8\n'
        (folder / 'extrapolation.csv').write_text(rows)
    return tmp_path


def test_report(grid):
    """In a process of its own, with the imports of the script alone."""
    command = [sys.executable, ROOT / 'compare.py', grid]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding='utf-8')
    assert done.returncode == 0
    assert done.stderr.splitlines() == [f'left out 1 run in {grid / "cells"}: b (running)']
    assert '0.750' in done.stdout
    for name in ('table.csv', 'seeds.csv', 'results.csv', 'table.md', 'table.tex', 'curves.svg', 'report.html'):
        assert str(grid / 'report' / name) in done.stdout
        assert (grid / 'report' / name).stat().st_size > 0


def test_a_report_of_other_runs_is_left_alone(grid, run):
    """A cell and its sweep belong together: the report goes to the sweep, not into the cell."""
    cell = grid / 'cells' / 'a'
    run(cell, grid)
    before = (grid / 'report' / 'report.html').read_bytes()
    refused = run(cell, code=2)
    (line,) = refused.stderr.splitlines()
    assert line == f'compare.py: {grid / "report"} holds the comparison of {grid}, {cell} - choose another --output'
    assert (grid / 'report' / 'report.html').read_bytes() == before
    run(cell, grid)
    assert not (cell / 'report').exists()


def test_one_run_of_several_asks_where_the_report_goes(grid, run):
    moved = grid.parent / 'moved'
    (grid / 'cells' / 'a').rename(moved)
    run(moved)
    assert (moved / 'report' / 'report.html').exists()
    refused = run(moved, grid, code=2)
    assert f'{moved} is one run of several - say where the report goes with --output=' in refused.stderr


def test_a_later_evaluation(grid, run):
    """By its lengths or its name; runs that have none are left out by name. Its report has a place of its own."""
    rows = 'seed,length,accuracy,exact_match,loss,baseline,examples\n0,30,0.5,0,1,0.2,64\n0,70,0.125,0,1,0.2,64\n'
    (grid / 'cells' / 'a' / 'evaluation_30_70_64-examples.csv').write_text(rows)
    other = grid / 'cells' / 'c'
    shutil.copytree(grid / 'cells' / 'a', other)
    (other / 'evaluation_30_70_64-examples.csv').unlink()
    names = {'30,70': '30_70', 'evaluation_30_70_64-examples.csv': 'evaluation_30_70_64-examples_csv'}
    for asked, name in {**names, '30_70_64-examples': '30_70_64-examples'}.items():
        done = run(grid, f'--evaluation={asked}')
        assert f'left out 2 runs in {grid / "cells"}: b (running); c (no evaluation {asked})' in done.stderr
        assert 'evaluated at 30,70' in done.stdout
        assert '0.312' in done.stdout
        assert f'--evaluation={asked}' in (grid / f'report_{name}' / 'report.html').read_text()
    for asked in ('31', 'nothing'):
        refused = run(grid, f'--evaluation={asked}', code=2)
        assert f"no run has an evaluation '{asked}' - there are: evaluation_30_70_64-examples.csv" in refused.stderr


def test_an_evaluation_under_another_scheme_says_so(grid, run):
    """The scheme or task of an evaluation has its own column, also if other runs kept theirs."""
    head = 'seed,length,accuracy,exact_match,loss,baseline,examples'
    values = ('0,30,0.5,0,1,0.2,64', '0,70,0.125,0,1,0.2,64')
    named = [f'{head},position', *(f'{row},pi(scale=4)|rope' for row in values)]
    file = 'evaluation_30_70_64-examples{}.csv'
    one, other = (grid / 'cells' / name for name in 'ac')
    (one / file.format('_pi')).write_text('\n'.join([*named, '']))

    def found():
        done = run(grid, '--evaluation=30,70')
        rows = list(csv.DictReader((grid / 'report_30_70' / 'table.csv').read_text().splitlines()))
        assert ('evaluated under' in done.stdout) is ('evaluated_under' in rows[0])
        return {(row['task'], row.get('evaluated_on'), row.get('evaluated_under')) for row in rows}

    assert found() == {('even_pairs', None, 'pi(scale=4)|rope')}
    shutil.copytree(one, other)
    (other / file.format('_pi')).unlink()
    config = json.loads((other / 'config.json').read_text())
    (other / 'config.json').write_text(json.dumps({**config, 'train': {'lengths': '1-4', 'final_position': 'none'}}))
    (other / file.format('')).write_text('\n'.join([head, *values, '']))
    assert found() == {('even_pairs', None, 'none'), ('even_pairs', None, 'pi(scale=4)|rope')}
    (one / file.format('_pi')).write_text('\n'.join([f'{head},task', *(f'{row},parity_check' for row in values), '']))
    assert found() == {('even_pairs', 'even_pairs', None), ('parity_check', 'parity_check', None)}


def test_cells_of_a_sweep_are_reported_in_the_sweep(grid, run):
    """Which does not stand in the way of the sweep's own report."""
    for name in ('c', 'd'):
        cell = grid / 'cells' / name
        shutil.copytree(grid / 'cells' / 'a', cell)
        config = json.loads((cell / 'config.json').read_text()) | {'seed': ord(name)}
        (cell / 'config.json').write_text(json.dumps(config))
        table = (cell / 'extrapolation.csv').read_text()
        (cell / 'extrapolation.csv').write_text(table.replace('\n0,', f'\n{ord(name)},'))
    cells = [grid / 'cells' / name for name in ('a', 'c')]
    for paths in (cells[:1], cells, [grid / 'cells'], [grid]):
        done = run(*paths)
        assert str(grid / 'report' / 'table.csv') in done.stdout
    assert sorted(path.name for path in grid.iterdir()) == ['cells', 'report']
    assert not list(grid.glob('cells/*/report'))


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        ('{}', "'seed' is missing"),
        ('{"task": 5}', "'seed' is missing"),
        ('{"seed": 0, "task": 5}', "'task' must be text, not 5"),
        ('{"seed": "0"}', "'seed' must be a whole number, not '0'"),
        ('{"seed": 0, "population": [1]}', "'population' must be a section"),
        ('[]', 'must hold one JSON object'),
        ('\x00\xff', 'cannot read'),
    ],
)
def test_a_foreign_config_is_left_out_by_name(grid, content, reason):
    foreign = grid / 'notebook'
    foreign.mkdir()
    (foreign / 'config.json').write_bytes(content.encode('latin-1'))
    comparison = compare([grid])
    (told,) = (each for each in comparison.left_out if each.path == foreign)
    assert reason in told.status
    with pytest.raises(UserError, match=re.escape(reason)) as raised:
        compare([foreign])
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    'summary',
    [{'trained_lengths': 'ab'}, {'trained_lengths': [None, 1]}, {'metric': 'f1'}, {'metric': 3}],
)
def test_a_damaged_summary_is_left_out_by_name(grid, summary):
    other = grid / 'cells' / 'c'
    shutil.copytree(grid / 'cells' / 'a', other)
    (other / 'summary.json').write_text(json.dumps({'status': 'finished', **summary}))
    assert str(other) in [str(each.path) for each in compare([grid]).left_out]


def test_links_are_followed_or_named(grid, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    (grid / 'cells' / 'a').rename(elsewhere / 'a')
    (grid / 'cells' / 'a').symlink_to(elsewhere / 'a')
    (grid / 'again').symlink_to(grid)  # in circles
    (grid / 'cells' / 'gone').symlink_to(elsewhere / 'gone')
    comparison = compare([grid])
    assert [each.path for each in comparison.runs] == [grid / 'cells' / 'a']
    assert {each.path.name: each.status for each in comparison.left_out} == {
        'b': 'running',
        'gone': 'a link that leads nowhere',
    }


@pytest.mark.parametrize('steps', [0, 5, 8, 9, 10, 17])  # nine files are written, then renamed
def test_an_interrupted_report_does_not_block_the_next(grid, undrawn, monkeypatch, steps):
    """Before whichever file, also one that the next report does not have."""
    left = list(range(steps))

    def interruptible(function):
        def call(*arguments, **options):
            if not left:
                raise KeyboardInterrupt
            left.pop()
            return function(*arguments, **options)

        return call

    comparison = compare([grid])
    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', interruptible(os.replace))
        patch.setattr(Path, 'write_bytes', interruptible(Path.write_bytes))
        with pytest.raises(KeyboardInterrupt):
            page.write(comparison, grid / 'report', {'pairs.csv': ''})
    written = page.write(comparison, grid / 'report')
    assert sorted((grid / 'report').iterdir()) == sorted(written)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['missing'], "no directory 'missing'"),
        (['{grid}/cells/b'], 'no finished run'),
        ([], 'name the runs to compare'),
        (['{grid}', '--metric=f1'], "unknown metric 'f1'"),
    ],
)
def test_mistakes_end_in_one_line(grid, run, arguments, message):
    failed = run(*(argument.format(grid=grid) for argument in arguments), code=2)
    (line,) = failed.stderr.splitlines()
    assert message in line
