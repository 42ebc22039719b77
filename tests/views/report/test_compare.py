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
    """The first argument says where the report goes by default."""
    run_a = grid / 'cells' / 'a'
    assert run(run_a, grid).returncode == 0
    before = (run_a / 'report' / 'report.html').read_bytes()
    refused = run(run_a)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line == (f'compare.py: {run_a / "report"} holds the comparison of {run_a}, {grid} - choose another --output')
    assert (run_a / 'report' / 'report.html').read_bytes() == before
    assert run(run_a, grid).returncode == 0


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
