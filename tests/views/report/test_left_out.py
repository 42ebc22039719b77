"""Runs left out, by name and reason."""

import re
from pathlib import Path

import pytest

from mha.views.report import comparison, left_out, page, runs


def of(*planted):
    return left_out.grouped([runs.Run(Path(path), {}, {'status': status}, {}) for path, status in planted])


@pytest.mark.parametrize(
    ('planted', 'text'),
    [
        ([('a', 'running')], '1 run in .: a (running)'),
        ([('/x/a', 'running')] * 2, '1 run in /x: a (running)'),
        ([('x/a', 'running'), ('x/b', 'lost'), ('x/c', 'lost')], '3 runs in x: b, c (lost); a (running)'),
        ([('x/cells/a', 'lost'), ('y/cells/a', 'lost')], '2 runs in .: x/cells/a, y/cells/a (lost)'),
        (
            [('x', 'diverged: seed=1'), ('x', 'diverged: seed=2')],
            '2 runs in .: x (diverged: seed=1); x (diverged: seed=2)',
        ),
        ([(f'x/{i}', str(i)) for i in range(9)], '9 runs in x: 0 (0); 1 (1); 2 (2); 3 (3); 5 more'),
        ([(f'x/{"n" * 50}{i}', 'lost') for i in range(9)], f'9 runs in x: {"n" * 50}0 and 8 more (lost)'),
        ([(f'x/{"n" * 99}{i}', 'lost') for i in range(9)], f'9 runs in x: {"n" * 99}0 and 8 more (lost)'),
    ],
)
def test_a_short_text(planted, text):
    assert str(of(*planted)) == text


def test_relative_and_absolute_paths():
    assert of((Path.cwd() / 'x/a', 'lost'), ('x/b', 'lost')).folder == str(Path.cwd() / 'x')


def test_the_page_lists_all_names_folded(make):
    """By reason; each name once, without the path of its sweep."""
    folders = [make('done'), *(make(f'grid/{i}', status=('running', 'lost')[i // 20]) for i in range(32))]
    compared = comparison.compare([folders[0].parent])
    text = page.as_html(compared, '<svg width="1" viewBox="0 0 1 1"></svg>', Path('report'))
    (folded,) = re.findall(r'<details[^>]* id="left-out">(.*?)</details>', text, re.S)
    assert '<summary>32 runs left out</summary>' in folded
    assert re.findall(r'<p class="grey">(.*)</p>', folded) == [
        f'in <code>{folders[1].parent}</code>',
        'running (20):',
        'lost (12):',
    ]
    names = re.findall(r'<li><code>(\d+)</code></li>', folded)
    assert sorted(names, key=int) == [str(number) for number in range(32)]
    assert text.count('runs left out') == 1
