"""Heatmap of a table of scores."""

import dataclasses
import math
import re

from mha.views.report import comparison, heatmap, pivot, plots


def svg(folders):
    compared = comparison.compare(folders)
    return plots.as_svg(heatmap.figure(pivot.pivot(compared, ['position'], ['task'])))


def test_numbers_labels_and_a_missing_combination(make):
    scores = {('rope', 'even_pairs'): 0.25, ('rope', 'reverse_string'): 0.5, ('alibi', 'even_pairs'): 1.0}
    folders = [
        make(str(index), score, model__position=scheme, task=task)
        for index, ((scheme, task), score) in enumerate(scores.items())
    ]
    drawn = svg(folders)
    assert drawn == svg(folders)
    texts = re.findall(r'<text[^>]*>([^<]*)</text>', drawn)
    assert sorted(texts) == sorted(
        ['0.250', '0.500', '1.000', 'rope', 'alibi', 'even_pairs', 'reverse_string', 'position', 'task']
    )
    assert drawn.count('<pattern') == 1  # of the hatched cell


def test_values_that_are_no_shares_have_a_scale_of_their_own(make):
    """Losses above 1, equal in all cells: one colour, and no failure."""
    folders = [
        make(f'{name} {task}', model__position=name, task=task, metric='loss')
        for name in ('rope', 'alibi')
        for task in ('even_pairs', 'reverse_string')
    ]
    texts = re.findall(r'<text[^>]*>([^<]*)</text>', svg(folders))
    values = [float(text) for text in texts if re.fullmatch(r'[\d.e+]+', text)]
    assert len(values) == 4
    assert min(values) > 1


def test_a_table_without_scores(make):
    """Runs without a length beyond the trained ones, and losses that are not finite."""
    folders = [
        make(f'{name} {task}', model__position=name, task=task) for name in 'ab' for task in ('even_pairs', 'scan')
    ]
    table = pivot.pivot(comparison.compare(folders), ['position'], ['task'])
    for value in (math.nan, math.inf):
        cells = {place: dataclasses.replace(cell, scores=cell.scores * value) for place, cell in table.cells.items()}
        assert plots.as_svg(heatmap.figure(dataclasses.replace(table, cells=cells)))
