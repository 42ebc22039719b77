"""The script itself: what it prints, and how mistakes end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(*arguments):
    command = [sys.executable, ROOT / 'compare.py', *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding='utf-8')


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
    done = run(grid)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [f'left out 1 unfinished run: {grid / "cells" / "b"} (running)']
    assert '0.750' in done.stdout
    for name in ('table.csv', 'table.md', 'curves.svg', 'report.html'):
        assert str(grid / 'report' / name) in done.stdout
        assert (grid / 'report' / name).stat().st_size > 0


def test_a_report_of_other_runs_is_left_alone(grid):
    """A cell and its sweep belong together: the report goes to the sweep, not into the cell."""
    cell = grid / 'cells' / 'a'
    assert run(cell, grid).returncode == 0
    before = (grid / 'report' / 'report.html').read_bytes()
    refused = run(cell)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line == f'compare.py: {grid / "report"} holds the comparison of {grid}, {cell} - choose another --output'
    assert (grid / 'report' / 'report.html').read_bytes() == before
    assert run(cell, grid).returncode == 0
    assert not (cell / 'report').exists()


def test_one_run_of_several_asks_where_the_report_goes(grid):
    moved = grid.parent / 'moved'
    (grid / 'cells' / 'a').rename(moved)
    assert run(moved).returncode == 0
    assert (moved / 'report' / 'report.html').exists()
    refused = run(moved, grid)
    assert refused.returncode == 2
    assert f'{moved} is one run of several - say where the report goes with --output=' in refused.stderr


def test_a_later_evaluation(grid):
    """By its lengths or the name of its file; runs that have none are left out."""
    rows = 'seed,length,accuracy,exact_match,loss,baseline,examples\n0,30,0.5,0,1,0.2,64\n0,70,0.125,0,1,0.2,64\n'
    (grid / 'cells' / 'a' / 'evaluation_30_70_64-examples.csv').write_text(rows)
    for asked in ('30,70', 'evaluation_30_70_64-examples.csv'):
        done = run(grid, f'--evaluation={asked}')
        assert done.returncode == 0, done.stderr
        assert 'evaluated at 30,70' in done.stdout
        assert '0.312' in done.stdout
        assert f'--evaluation={asked}' in (grid / 'report' / 'report.html').read_text()
    refused = run(grid, '--evaluation=31')
    assert refused.returncode == 2
    assert "no run has an evaluation '31' - there are: evaluation_30_70_64-examples.csv" in refused.stderr


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['missing'], "no directory 'missing'"),
        (['{grid}/cells/b'], 'no finished run'),
        ([], 'name the runs to compare'),
        (['{grid}', '--metric=f1'], '--metric'),
    ],
)
def test_mistakes_end_in_one_line(grid, arguments, message):
    failed = run(*(argument.format(grid=grid) for argument in arguments))
    assert failed.returncode == 2
    (line,) = failed.stderr.splitlines()
    assert message in line
