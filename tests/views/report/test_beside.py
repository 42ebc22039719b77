"""Published numbers beside those of runs."""

import pytest

from mha.spec import UserError
from mha.views.report import beside, comparison, published
from mha.views.report.table import section_text

PAPER = published.load('ruoss2023')


def test_theirs_and_ours_at_the_same_lengths(make):
    sizes = dict(model__dim=64, model__heads=8)
    folders = [make(f's{seed}', beyond, seed=seed, **sizes) for seed, beyond in enumerate((0.5, 0.6))]
    compared = comparison.compare(folders)
    (found,) = beside.pairs(compared, PAPER)
    assert found.theirs.scheme_label == 'RoPE'
    assert found.lengths == (30, 40, 60, 120)  # trained to 20: 41 to 500 of those trained to 40 are 21 to 250
    assert found.measured.mean == pytest.approx(0.55)
    assert found.measured.best == 0.6
    numbers, settings = beside.sections(compared, [found], PAPER)
    text = section_text(numbers)
    assert 'multiples of the longest trained one' in text
    assert all(note in text for note in PAPER.notes)
    assert 'Reverse String   RoPE' in text
    assert 'recalled: from memory' in text
    assert 'train.lengths' in section_text(settings)
    differ = beside.differences(compared, [found], PAPER)
    assert differ['train.lengths'] == ('1-40', '1-20')
    assert differ['train.steps'][1] == '100'
    assert 'model.causal' not in differ
    assert beside.as_csv([found]).splitlines()[1].startswith('Reverse String,RoPE,0.519,maximum,41-500,recalled,0.550')


def test_other_lengths_are_named(make):
    compared = comparison.compare([make('a', evaluated=(10, 20, 30, 40))])
    (found,) = beside.pairs(compared, PAPER)
    assert found.lengths == (30, 40)


def test_lengths_count_as_multiples_of_the_trained_one(make):
    """Ours were trained to 20, theirs to 50 and tested on 51-100 and 101-150."""
    table = published.load('huang2024')
    evaluated = (10, 20, 21, 40, 41, 60, 61)
    folder = make('a', evaluated=evaluated, metric='exact_match', task='majority', model__position='none')
    compared = comparison.compare([folder])
    lengths = {each.theirs.lengths[0]: each.lengths for each in beside.pairs(compared, table)}
    assert lengths == {1: (10, 20), 51: (21, 40), 101: (41, 60)}


def test_runs_without_a_published_number_are_refused(make):
    with pytest.raises(UserError, match=r'no compared run has a number .* the tasks .*reverse_string'):
        beside.pairs(comparison.compare([make('a', model__position='cope')]), PAPER)


def test_mean_reciprocal_ranks(make):
    """RoPE is first in both tasks of theirs, second and then equal to sin/cos in ours."""
    scores = {('reverse_string', 'rope'): 0.2, ('reverse_string', 'sincos'): 0.4}
    scores |= {('bucket_sort', 'rope'): 0.3, ('bucket_sort', 'sincos'): 0.3}
    folders = [
        make(str(index), score, task=task, model__position=scheme, model__dim=64, model__heads=8)
        for index, ((task, scheme), score) in enumerate(scores.items())
    ]
    compared = comparison.compare(folders)
    _, ranks, _ = beside.sections(compared, beside.pairs(compared, PAPER), PAPER)
    assert {tuple(line) for line in ranks.lines} == {('RoPE', '1.000', '0.750'), ('sin / cos', '0.500', '1.000')}
