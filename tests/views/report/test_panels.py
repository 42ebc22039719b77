"""Panels of figures: one per task, or per value of another setting."""

import dataclasses
import functools
import json
import re

import pytest

from mha.views.report import comparison, plots

TASKS = ('reverse_string', 'bucket_sort')


@pytest.fixture
def folder(study):
    return study(('rope', 'alibi'), TASKS, 2, (4, 16, 8))


def drawn(folder, panels):
    """Titles of the panels, and the names of their lines."""
    compared = dataclasses.replace(comparison.compare([folder]), panels=panels)
    return {
        axes.get_title(loc='left'): [
            line.get_label().replace('\n', ' ') for line in axes.lines if not line.get_label().startswith('_')
        ]
        for axes in plots.figure(compared).axes
    }


def test_tasks(folder):
    found = drawn(folder, 'task')
    assert list(found) == ['bucket_sort', 'reverse_string']
    lines = {f'{scheme}, heads={heads}' for heads in (4, 8, 16) for scheme in ('rope', 'alibi')}
    assert all({*found[task]} == lines | {'baseline'} for task in TASKS)


def test_values_of_a_setting(folder):
    """By size; lines then name the task, and each task has its baseline."""
    found = drawn(folder, 'model.heads')
    assert list(found) == ['heads=4', 'heads=8', 'heads=16']
    for lines in found.values():
        assert {*lines[-2:]} == {f'baseline ({task})' for task in TASKS}
        assert {frozenset(line.split(', ')) for line in lines[:-2]} == {
            frozenset((scheme, task)) for scheme in ('rope', 'alibi') for task in TASKS
        }
    assert list(drawn(folder, 'model.position')) == ['alibi', 'rope']


def test_one_panel(folder):
    ((title, lines),) = drawn(folder, 'none').items()
    assert title == ''
    assert len(lines) == len({*lines}) == 14


def test_lines_look_alike_across_panels(folder):
    compared = dataclasses.replace(comparison.compare([folder]), panels='model.heads')
    looks = {str(sorted(style.items(), key=str)) for style in plots.styles(compared)}
    assert len(looks) == 4


def test_panels_by_one_name_only(make):
    """A panel for each row."""
    folders = [make(name, model__position=name) for name in ('rope', 't5')]
    compared = dataclasses.replace(comparison.compare(folders), panels='model.position')
    assert [[line.get_label() for line in axes.lines] for axes in plots.figure(compared).axes] == [
        ['rope', 'baseline'],
        ['t5', 'baseline'],
    ]


def test_the_flag(folder, script):
    """By the key or the title of a setting. The page shows the same panels at first."""
    run = functools.partial(script, 'compare.py', folder)
    run('--panels=heads')
    assert [text in (folder / 'report' / 'curves.svg').read_text() for text in ('heads=16<', '>heads=4<')] == [
        True,
        True,
    ]
    text = (folder / 'report' / 'report.html').read_text()
    assert '--panels=model.heads' in text
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert data
    assert json.loads(data[1])['panels'] == 'model.heads'
    refused = run('--panels=dim', code=2)
    assert "unknown setting in --panels 'dim'" in refused.stderr
    refused = run('--panels=causal', code=2)
    assert "setting in --panels: 'causal' does not vary in these runs" in refused.stderr
