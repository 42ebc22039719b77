"""Several metrics side by side."""

import csv

import pytest

from mha.spec import UserError
from mha.views.report import comparison, page, pivot, table


def records(path):
    return list(csv.DictReader(path.open()))


def test_exact_match_stands_beside_accuracy(make, tmp_path):
    """Its score has a column of its own in every form of the table, also by seed, and its values one in results.csv."""
    folders = [make(f's{seed}', beyond, seed=seed) for seed, beyond in enumerate((0.5, 0.7))]
    compared = comparison.compare(folders)
    assert [metric.name for metric in compared.more_metrics] == ['exact_match']
    headers, (row, baseline) = table.grid(compared)
    at = headers.index('exact match (30-120)')
    assert headers[at - 1] == 'score (30-120)'
    assert row[at] == '0.250 ± 0.000 (max 0.250)'
    assert baseline[at] == ''
    page.write(compared, tmp_path)
    (line,) = records(tmp_path / 'table.csv')
    assert [line[f'score_exact_match{end}'] for end in ('', '_ci95', '_max')] == ['0.25', '0.0', '0.25']
    assert [seed['score_exact_match'] for seed in records(tmp_path / 'seeds.csv')] == ['0.25', '0.25']
    first = records(tmp_path / 'results.csv')[0]
    assert [first[name] for name in ('accuracy', 'exact_match')] == ['1.0', '0.25']
    assert '--metric=accuracy,exact_match' in (tmp_path / 'report.html').read_text()


def test_metrics_by_name(make):
    folders = [make('a', 0.5), make('b', 0.9, model__position='t5')]
    compared = comparison.compare(folders, ('exact_match', 'accuracy', 'loss'))
    assert (compared.metric.name, [metric.name for metric in compared.more_metrics]) == (
        'exact_match',
        ['accuracy', 'loss'],
    )
    headers, lines = table.grid(compared)
    assert headers[-5:-2] == ['score (30-120)', 'accuracy (30-120)', 'loss (30-120)']
    assert {line[-4] for line in lines} == {'0.500', '0.900'}
    assert comparison.compare([make('c')], ('accuracy',)).more_metrics == ()
    with pytest.raises(UserError, match="unknown metric 'f1'"):
        comparison.compare([make('d')], ('accuracy', 'f1'))


def test_answers_of_one_symbol_need_no_exact_match(make):
    """There it is the accuracy."""
    folder = make('a')
    text = (folder / 'extrapolation.csv').read_text()
    assert ',1.0,0.25,' in text
    (folder / 'extrapolation.csv').write_text(
        text.replace(',1.0,0.25,', ',1.0,1.0,').replace(',0.5,0.25,', ',0.5,0.5,')
    )
    assert comparison.compare([folder]).more_metrics == ()


def test_a_bootstrap_interval_of_the_score(make, tmp_path):
    scores = (0.2, 0.4, 0.5, 0.9)
    page.write(comparison.compare([make(f's{seed}', s, seed=seed) for seed, s in enumerate(scores)]), tmp_path)
    (line,) = records(tmp_path / 'table.csv')
    low, high = float(line['score_bootstrap_low']), float(line['score_bootstrap_high'])
    assert 0.2 < low < 0.4
    assert 0.6 < high < 0.9
    assert high - low < 2 * float(line['score_ci95'])


def test_a_report_has_no_files_of_an_earlier_question(make, tmp_path):
    compared = comparison.compare([make(f'{scheme}', model__position=scheme) for scheme in ('rope', 't5')])
    output = tmp_path / 'report'
    page.write(compared, output, {'pairs.csv': 'a\n'})
    (output / 'mine.csv').write_text('precious')
    page.write(compared, output, {'pivot.csv': 'b\n'})
    assert {path.name for path in output.iterdir()} >= {'pivot.csv', 'mine.csv', 'curves.pdf'}
    assert not (output / 'pairs.csv').exists()
    assert (output / 'curves.pdf').read_bytes().startswith(b'%PDF')


def test_after_a_choice_a_report_is_about_the_chosen_runs(make):
    folders = [make(f'{rate}', optimizer__learning_rate=rate, train__steps=steps) for rate, steps in ((1, 5), (2, 5))]
    chosen, _ = pivot.choose_best(comparison.compare(folders), 'learning_rate')
    assert [run.setting('optimizer.learning_rate') for run in chosen.runs] == ['1']


def test_further_tables_on_the_page(make):
    compared = comparison.compare(
        [make(f'{a}{b}', model__position=a, train__steps=b) for a in ('<i>', 't5') for b in (5, 6)]
    )
    section = pivot.section(pivot.pivot(compared, ['position'], ['steps']))
    text = page.as_html(compared, '<svg width="1" viewBox="0 0 1 1"></svg>', page.Path('report'), [section])
    assert '<h2>Scores by position (down) and steps (across)</h2>' in text
    assert '<td>&lt;i&gt;</td><td class="n">0.500</td>' in text
    markdown = page.as_markdown(compared)
    assert '&lt;i&gt;' in markdown
    assert '<i>' not in markdown
