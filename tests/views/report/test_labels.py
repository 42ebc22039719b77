"""Settings that follow from others label nothing, and stay in the files."""

import csv
import itertools

import pytest

from mha.views.report import answer, comparison, embedded, labels, page, pivot, plots, table

POSITION = 'model.position'


def following(**columns):
    """Keys that follow from others, in columns of values, one per row; `position` stands for its key."""
    keys = [POSITION if key == 'position' else key for key in columns]
    return labels.following(keys, {*zip(*columns.values(), strict=True)})


@pytest.mark.parametrize(
    ('columns', 'expected'),
    [
        ({'dim': '1122', 'heads': '1222', 'position': 'abab', 'task': 'xxyy'}, {'dim': 'task'}),  # heads: in part
        ({'dim': '1122', 'heads': '1122', 'position': 'abab', 'task': 'xxyy'}, {'dim': 'task', 'heads': 'task'}),
        ({'dim': '1122', 'position': 'aabb', 'task': 'xyxy'}, {'dim': POSITION}),  # from each other: the scheme stays
        ({'dim': '1122', 'position': 'aabb', 'task': 'xxyy'}, {'dim': 'task'}),  # task and scheme always stay
        ({'dim': '1122', 'heads': '3344', 'position': 'abab'}, {'heads': 'dim'}),  # from each other: the first stays
        ({'dim': '1222', 'layers': '1213', 'position': 'abaa'}, {}),  # each in part
        ({'heads': '3344', 'layers': '1123', 'position': 'abab'}, {'heads': 'layers'}),
        ({'dim': '112211', 'heads': '334455', 'position': 'ababab'}, {'dim': 'heads'}),  # whatever their order
        (
            {'dim': '111122', 'heads': '334455', 'layers': '667788', 'position': 'ababab'},
            {'dim': 'heads', 'layers': 'heads'},
        ),
        ({'heads': '1223', 'rate': '1234', 'task': 'xxxx'}, {}),  # a rate for each row tells nothing
        ({'heads': '12', 'rate': '12'}, {}),
        ({'heads': '12', 'task': 'xy'}, {'heads': 'task'}),
        ({'heads': '123', 'task': 'xyy', 'position': 'aab'}, {}),
        ({'task': 'xyz'}, {}),
    ],
)
def test_following(columns, expected):
    assert following(**columns) == expected


@pytest.fixture
def compared(make):
    """Each task has heads and a width of its own; the steps of one task vary."""
    heads = {'reverse_string': 2, 'bucket_sort': 4, 'even_pairs': 4}
    folders = [
        make(
            f'{task}-{scheme}-{steps}',
            0.9 - 0.1 * (scheme == 't5') - steps / 1000,
            task=task,
            model__position=scheme,
            model__heads=heads[task],
            model__dim=10 * heads[task],
            train__steps=steps,
        )
        for task, scheme, steps in itertools.product(heads, ('rope', 't5'), (100, 200))
        if steps == 100 or task == 'bucket_sort'
    ]
    return comparison.compare([folders[0].parent])


def test_labels_leave_out_what_follows(compared):
    assert compared.follows == {'model.heads': 'task', 'model.dim': 'task'}
    assert {compared.name(row) for row in compared.rows} == {
        f'{s}, steps={n}' for s in ('rope', 't5') for n in (100, 200)
    }
    text = table.text(compared)
    assert text.split()[:3] == ['task', 'position', 'steps']
    assert 'task determines heads, dim in these runs; table.csv has them' in text
    assert 'baseline (even_pairs)' in text
    assert 'heads' not in answer.question(compared)
    drawn = plots.curves(compared)
    assert 'steps=200' in drawn
    assert 'heads' not in drawn
    for form in (page.as_markdown(compared), page.as_latex(compared)):
        assert 'heads' not in form.replace('task determines heads', '')


def test_files_and_the_page_keep_what_follows(compared, tmp_path):
    page.write(compared, tmp_path)
    for name in ('table.csv', 'seeds.csv', 'results.csv'):
        rows = list(csv.DictReader((tmp_path / name).open()))
        assert {(row['task'], row['model.heads']) for row in rows} == {
            ('reverse_string', '2'),
            ('bucket_sort', '4'),
            ('even_pairs', '4'),
        }
    text = (tmp_path / 'report.html').read_text()
    assert '<dt>model.heads</dt><dd>2, 4</dd>' in text
    assert '<code class="setting">model.heads=2</code>' in text
    assert '>heads</th>' not in text
    data = embedded.page_data(compared)
    assert data['follows'] == ['model.heads', 'model.dim']
    assert 'model.heads' in data['keys']


def test_questions_about_what_follows(compared):
    """Can still be asked."""
    crossed = pivot.pivot(
        comparison.compare(compared.paths, only=['steps=100', 'task=even_pairs', 'task=reverse_string']),
        ['heads'],
        ['position'],
    )
    assert crossed.columns == (('rope',), ('t5',))
    with pytest.raises(ValueError, match=r'rows that differ in train\.steps share a cell'):
        pivot.pivot(compared, ['heads', 'task'], ['position'])


def test_the_best_is_chosen_with_what_follows_from_it(make):
    """The warm-up goes with the rate, and is no setting of its own."""
    folders = [
        make(
            f'{rate}{scheme}', model__position=scheme, optimizer__learning_rate=rate, optimizer__warmup_steps=10 * rate
        )
        for rate, scheme in itertools.product((1, 2), ('rope', 't5'))
    ]
    chosen, lines = pivot.choose_best(comparison.compare(folders), 'learning_rate')
    assert len(chosen.rows) == 2
    assert all('learning_rate 1 of 1, 2' in line for line in lines)
