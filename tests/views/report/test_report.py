"""The report against numbers worked out by hand, on runs made of a few files."""

import csv
import dataclasses
import itertools
import json
import math
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from mha.spec import UserError, lengths
from mha.views.report import columns, left_out, page, plots, position_curves, runs, statistics, table
from mha.views.report import comparison as comparing


def compare(*folders, metric='auto'):
    return comparing.compare(folders, (metric,))


def test_interval_and_maximum_over_three_seeds(make):
    folders = [make(f's{seed}', beyond, seed=seed) for seed, beyond in enumerate((0.5, 0.6, 0.8))]
    comparison = compare(*folders)
    (row,) = comparison.rows
    cell = comparison.cell(row, comparison.ranges[-1])
    assert row.seeds == (0, 1, 2)
    assert cell.mean == pytest.approx(1.9 / 3)
    assert cell.half_width == pytest.approx(4.3027 * np.std([0.5, 0.6, 0.8], ddof=1) / math.sqrt(3), rel=1e-4)
    assert cell.best == 0.8
    assert '0.633 ± 0.379 ‡ (max 0.800)' in table.text(comparison)
    assert '3 seeds' in table.text(comparison)


@pytest.mark.parametrize(('seeds', 'quantile'), [(2, 12.706), (5, 2.776), (10, 2.262)])
def test_quantiles(seeds, quantile):
    values = np.arange(seeds, dtype=float)
    expected = quantile * values.std(ddof=1) / math.sqrt(seeds)
    assert statistics.half_width(values) == pytest.approx(expected, rel=2e-4)


def test_one_seed_has_no_interval(make):
    text = table.text(compare(make('a')))
    assert '±' not in text
    assert '1 seed' in text
    assert 'no interval' in text


def test_several_seeds_in_one_file(make):
    folder = make('a', 0.5)
    rows = (folder / 'extrapolation.csv').read_text()
    other = ''.join(f'7,{length},0.7,0,1,0.4,64\n' for length in reversed((10, 20, 30, 40, 60, 120)))
    (folder / 'extrapolation.csv').write_text(rows + other)
    (row,) = compare(folder).rows
    assert row.seeds == (0, 7)
    np.testing.assert_allclose(row.values[:, -1], [0.5, 0.7])


@pytest.mark.parametrize(
    ('evaluated', 'trained', 'names'),
    [
        ((5, 20, 21, 40, 41, 100, 101, 500), (1, 20), '5-20 (trained)|21-40|41-100|101-500|score (21-500)'),
        ((10, 30), (1, 20), '10 (trained)|score (30)'),  # one range beyond is the score
        ((5, 15), (10, 20), '5|15 (trained)'),  # shorter than trained is not trained
        ((30, 40, 50), (1, 20), '30-40|50|score (30-50)'),
    ],
)
def test_ranges(evaluated, trained, names):
    assert '|'.join(item.name for item in comparing.ranges(evaluated, trained)) == names


def test_score_is_the_mean_over_lengths_beyond(make):
    comparison = compare(make('a', 0.5))
    (row,) = comparison.rows
    means = {over.name: comparison.cell(row, over).mean for over in comparison.ranges}
    assert means == {'10-20 (trained)': 1, '30-40': 0.5, '60': 0.5, '120': 0.5, 'score (30-120)': 0.5}


def test_rows_are_labelled_by_what_varies_and_sorted(make):
    first = [make('a', 0.5, model__position='alibi'), make('b', 0.9, model__position='rope', seed=3)]
    comparison = compare(*first)
    assert comparison.headers == ['position']
    assert [row.labels for row in comparison.rows] == [('rope',), ('alibi',)]
    comparison = compare(*first, make('c', 0.7, model__heads=4))
    assert comparison.headers == ['position', 'heads']
    assert [row.labels for row in comparison.rows] == [('rope', '-'), ('rope', '4'), ('alibi', '-')]
    assert compare(first[0]).rows[0].labels == ('alibi',)


def test_keys_with_the_same_last_part_are_written_out(make):
    two = [make('a', optimizer__rate=1, model__rate=1), make('b', optimizer__rate=2, model__rate=2.0)]
    assert compare(*two).headers == ['model.rate', 'optimizer.rate']


def test_baseline_row_and_mark(make):
    comparison = compare(make('a', 0.3, model__position='none'), make('b', 0.5), make('c', 0.4, model__position='abs'))
    marks = {row.labels[0]: comparison.beats_baseline(row) for row in comparison.rows}
    assert marks == {'rope': True, 'abs': False, 'none': False}
    text = table.text(comparison).splitlines()
    assert [line.count('†') for line in text[2:6]] == [0, 1, 1, 0]
    assert [line.split()[0] + ''.join(line.split()[5:7]) for line in text[3:5]] == ['abs0.400†', 'none0.300†']
    assert text[5].split() == ['baseline'] + ['0.400'] * 5
    assert '†' not in table.text(compare(make('d', 0.5, seed=5)))


def test_each_task_has_its_baseline(make):
    comparison = compare(make('a', 0.3, baseline=0.2), make('b', 0.3, baseline=0.4, task='bucket_sort'))
    assert comparison.headers == ['task']
    assert [comparison.beats_baseline(row) for row in comparison.rows] == [False, True]
    assert 'baseline (bucket_sort)' in table.text(comparison)
    rows = list(csv.DictReader(page.as_csv(comparison).splitlines()))
    assert [(row['task'], row['score_baseline']) for row in rows] == [('bucket_sort', '0.4'), ('reverse_string', '0.2')]
    assert len(plots.figure(comparison).axes) == 2


def test_text_is_compared_by_bits_per_byte(make):
    folders = [make('a', task="text('x')", seed=1), make('b', task="text('x')", seed=2)]
    comparison = compare(*folders)
    assert comparison.baselines == {}
    assert comparison.cell(comparison.rows[0], comparison.ranges[0]).mean == pytest.approx(15)  # lengths 10 and 20
    assert 'bits per byte' in table.text(comparison)
    assert '(min ' in table.text(comparison)
    assert 'bits per byte' in table.summarise(runs.read(folders[0]))
    assert compare(*folders, metric='accuracy').baselines


def test_tasks_of_exact_match_are_compared_by_it(make):
    folder = make('a', 0.5, metric='exact_match')
    comparison = compare(folder)
    assert comparison.metric.name == 'exact_match'
    assert comparison.baselines == {}
    assert comparison.cell(comparison.rows[0], comparison.ranges[-1]).mean == 0.25
    assert 'exact match of whole answers' in table.summarise(runs.read(folder))
    assert compare(folder, metric='accuracy').metric.name == 'accuracy'


def test_runs_that_do_not_say_their_metric_are_of_accuracy(make):
    folder = make('a')
    summary = json.loads((folder / 'summary.json').read_text())
    del summary['metric']
    (folder / 'summary.json').write_text(json.dumps(summary))
    assert compare(folder).metric.name == 'accuracy'


def with_column(folder, column, values):
    """Sets a column of the run's extrapolation.csv."""
    path = folder / 'extrapolation.csv'
    rows = list(csv.DictReader(path.open()))
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, runs.COLUMNS)
        writer.writeheader()
        writer.writerows(row | {column: value} for row, value in zip(rows, values, strict=True))
    (run,) = runs.read(folder)
    return run


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        ((1, 1, 0.95, 0.5, 0.91, 0.9), {'in_range': 1, 'score': 0.815, 'longest': 60, 'longest_share': 3}),
        ((0.92, 0.5, 0, 0, 0, 0), {'in_range': 0.71, 'score': 0, 'longest': 10, 'longest_share': 0.5}),
        ((0.9, 0.9, 0.9, 0.9, 0.9, 0.9), {'in_range': 0.9, 'score': 0.9, 'longest': None, 'longest_share': None}),
    ],
)
@pytest.mark.parametrize('metric', ['accuracy', 'exact_match'])
def test_scores_of_a_run(make, metric, values, expected):
    run = with_column(make('a', metric=metric), metric, values)
    assert table.scores([run]) == pytest.approx(expected)
    json.dumps(table.scores([run]))


def test_scores_without_lengths_inside_or_beyond(make):
    assert table.scores(runs.read(make('a', evaluated=(10, 20))))['score'] is None
    assert table.scores(runs.read(make('b', evaluated=(30,))))['in_range'] is None


@pytest.mark.parametrize('trained', ['1-20', '1-30'])
def test_score_begins_right_after_the_trained_lengths(make, trained):
    run = with_column(make('a', train__lengths=trained), 'accuracy', (0, 0, 1, 0, 0, 0))
    expected = {'1-20': (0, 0.25), '1-30': (1 / 3, 0)}[trained]
    assert [table.scores([run])[name] for name in ('in_range', 'score')] == pytest.approx(expected)


def test_longest_is_shown(make):
    shown = table.summarise([with_column(make('a'), 'accuracy', (1, 1, 0.95, 0.5, 0.91, 0.5))])
    assert 'longest length with accuracy per symbol above 0.9: 60, 3 times the longest trained one' in shown
    shown = table.summarise([with_column(make('b', metric='exact_match'), 'accuracy', (1, 1, 1, 1, 1, 1))])
    assert 'longest length with exact match of whole answers above 0.9: none' in shown
    assert 'longest length' not in table.summarise(runs.read(make('c', task='text')))


def test_longest_of_a_row_is_that_of_the_mean_over_seeds(make):
    one, two = make('a', seed=0), make('b', seed=1)
    with_column(one, 'accuracy', (1, 1, 1, 0.85, 0.95, 0))
    with_column(two, 'accuracy', (1, 1, 0.9, 1, 0.85, 1))
    header, row = csv.reader(page.as_csv(compare(one, two)).splitlines())
    assert row[header.index('longest_solved')] == '40'
    assert 'longest_solved' not in page.as_csv(compare(one, two, metric='loss'))


def test_lower_losses_come_first(make):
    worse, better = make('a', model__position='none'), make('b')
    rows = (worse / 'extrapolation.csv').read_text().replace(f'0.25,{math.log(2) * 120}', '0.25,999')
    (worse / 'extrapolation.csv').write_text(rows)
    assert [row.labels for row in compare(worse, better, metric='loss').rows] == [('rope',), ('none',)]


@pytest.mark.parametrize(
    ('difference', 'message'),
    [
        (
            {'evaluated': (10, 20, 30)},
            r'differ in evaluated lengths \(10,20,30,40,60,120 against 10,20,30\) .* by --evaluation$',
        ),
        ({'examples': 32}, r'differ in examples per length \(64 against 32\)'),
        ({'eval__seed': 2}, r'differ in eval.seed .* separately$'),
        ({'baseline': 0.45}, r'different examples'),
        ({'seed': 0}, r'same seed 0'),
        ({'task': 'text'}, r'one metric'),
        ({'task': 'copy', 'metric': 'exact_match'}, r'one metric .* or use --metric=accuracy'),
    ],
)
def test_runs_that_do_not_belong_together(make, difference, message):
    folders = [make('a'), make('b', **{'seed': 1} | difference)]
    with pytest.raises(UserError, match=message) as raised:
        compare(*folders)
    assert '\n' not in str(raised.value)


def test_trained_lengths_may_differ(make, tmp_path):
    """They are a column; the score of each row begins beyond its own; every curve has a tick."""
    short = [make(f'short{seed}', 0.25, seed=seed, train__lengths='1-10') for seed in (0, 1)]
    comparison = compare(*short, make('long', 0.75))
    assert comparison.headers == ['trained lengths']
    assert [row.labels for row in comparison.rows] == [('1-20',), ('1-10',)]
    names = ['10 (trained)', '20', '30-40', '60', '120', 'score (beyond trained)']
    assert [over.name for over in comparison.ranges] == names
    score = comparison.ranges[-1]
    assert comparison.cell(comparison.rows[0], score).mean == 0.75  # over 30, 40, 60, 120
    assert comparison.cell(comparison.rows[1], score).mean == pytest.approx((1 + 4 * 0.25) / 5)
    text = table.text(comparison)
    assert 'trained on lengths 1-10 or 1-20' in text
    assert 'beyond its own trained lengths' in text
    (axes,) = plots.figure(comparison).axes
    ticks = {float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == '|'}
    assert ticks == {10, 20}
    rows = list(csv.DictReader(page.as_csv(comparison).splitlines()))
    assert [row['trained_lengths'] for row in rows] == ['1-20', '1-10']
    page.write(comparison, tmp_path / 'report')


def test_a_curriculum_that_ends_early_is_another_row(make):
    """Trained lengths are those of the summary, whatever the config asked for; a run may have no length beyond."""
    one, other = make('a'), make('b', 0.75)
    summary = json.loads((other / 'summary.json').read_text())
    (other / 'summary.json').write_text(json.dumps(summary | {'trained_lengths': [1, 200]}))
    comparison = compare(one, other)
    assert [row.labels for row in comparison.rows] == [('1-20',), ('1-200',)]
    assert comparison.beats_baseline(comparison.rows[1]) is False or '-' in table.text(comparison)
    assert math.isnan(comparison.cell(comparison.rows[1], comparison.ranges[-1]).mean)


@pytest.mark.parametrize(('trained', 'drawn'), [('1-20', 'trained lengths'), ('20', 'trained length')])
def test_trained_lengths_are_drawn(make, trained, drawn):
    """As a shading, or a line where there is one."""
    (axes,) = plots.figure(compare(make('a', train__lengths=trained))).axes
    assert axes.texts[0].get_text() == drawn
    shadings = [patch for patch in axes.patches if patch.get_width() > 0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 2]
    assert (len(shadings), len(lines)) == ((1, 0) if drawn.endswith('s') else (0, 1))


def test_a_metric_that_the_task_has_not_is_refused(make):
    with pytest.raises(UserError, match='loss in bits per byte is for language models'):
        compare(make('a'), metric='bits_per_byte')


def test_older_files_lack_newer_columns(make):
    folder = make('a')
    lines = (folder / 'extrapolation.csv').read_text().splitlines()
    (folder / 'extrapolation.csv').write_text(
        ''.join(','.join(line.split(',')[:3] + line.split(',')[4:]) + '\n' for line in lines)
    )
    (run,) = runs.read(folder)
    assert np.isnan(run.grid('exact_match')).all()
    assert '1.000' in table.summarise([run])


def test_size_of_the_data_is_told(make):
    folder = make('a', task='text', metric='bits_per_byte')
    summary = json.loads((folder / 'summary.json').read_text())
    sizes = {'data_train_bytes': 1234567, 'data_test_bytes': 89}
    (folder / 'summary.json').write_text(json.dumps(summary | sizes))
    assert 'data of 1,234,656 bytes, 1,234,567 to train and 89 to test' in table.facts(compare(folder))
    assert 'bytes' not in table.facts(compare(make('b')))
    (run,) = runs.read(folder)
    other = dataclasses.replace(run, others={'task': 'lm'})  # evaluated on data whose size the run does not know
    assert 'data of' not in table.summarise([other])


@pytest.mark.parametrize('metric', ['accuracy', 'bits_per_byte'])  # runs of earlier versions, and of this one
def test_a_text_run_has_one_metric(make, metric):
    run = with_column(
        make('a', task='text', metric=metric), 'loss', [math.log(2) * bits for bits in (1, 2, 3, 3, 3, 3)]
    )
    assert table.scores([run]) == {
        'in_range': pytest.approx(1.5),
        'score': pytest.approx(3),
        'longest': None,
        'longest_share': None,
    }
    shown = table.summarise([run])
    assert 'bits per byte' in shown.splitlines()[0]
    assert '3.000' in shown
    assert 'in brackets' not in shown
    assert compare(run.path).metric.name == 'bits_per_byte'
    assert compare(run.path, metric='loss').metric.title == 'loss in nats per symbol'


def test_every_form_of_the_table_has_every_column(make, tmp_path, monkeypatch):
    """A column is defined once."""
    added = columns.Column('extra', show=lambda row: columns.Shown('eleven'), fields=lambda row: {'extra': 11})
    known = columns.columns
    for module in (columns, page):
        monkeypatch.setattr(module, 'columns', lambda comparison: [*known(comparison), added])
    comparison = compare(make('a'))
    page.write(comparison, tmp_path / 'report')
    assert 'eleven' in table.text(comparison)
    for name in ('table.csv', 'seeds.csv', 'table.md', 'table.tex', 'report.html'):
        expected = ',extra\n' if name.endswith('csv') else 'eleven'
        assert expected in (tmp_path / 'report' / name).read_text()


POSITIONS = 'seed,length,position,accuracy,count,low,high'


@pytest.mark.parametrize(
    ('header', 'members', 'panels'),
    [
        (POSITIONS, [(0, '')], 1),
        (POSITIONS, [(0, ''), (1, '')], 1),
        (f'{POSITIONS},dropout_rate', [(0, ',.1'), (0, ',.2')], 2),
    ],
)
def test_curves_over_positions(tmp_path, header, members, panels):
    lines = [
        f'{seed},{length},{at},{(at % 5) / 5},64,{(at % 5) / 6},{(at % 5 + 1) / 6}{more}'
        for seed, more in members
        for length in (1, 3, 10)
        for at in range(1, length + 1)
    ]
    (tmp_path / 'positions.csv').write_text('\n'.join([header, *lines, '']))
    position_curves.draw(tmp_path / 'positions.csv', tmp_path / 'positions.svg')
    ElementTree.parse(tmp_path / 'positions.svg')
    text = (tmp_path / 'positions.svg').read_text()
    assert text.count('length 10<') == panels
    (tmp_path / 'positions.csv').write_text('seed,length\n0,1\n')
    with pytest.raises(UserError, match="record 1: 'position' is missing"):
        position_curves.draw(tmp_path / 'positions.csv', tmp_path / 'positions.svg')


def test_loss_over_thousands_of_positions(tmp_path, monkeypatch):
    """Lines are means over neighbours; the errors of k neighbours are sqrt(k) times smaller in their mean."""
    drawn = []
    monkeypatch.setattr(position_curves, '_panel', lambda axes, name, lines, columns: drawn.append((lines, columns)))
    rows = [f'0,1024,{at},0.5,64,0.4,0.6,{at / 1024},{at / 1024 - 0.4},{at / 1024 + 0.4}' for at in range(1, 1025)]
    header = 'seed,length,position,accuracy,count,low,high,loss,loss_low,loss_high'
    (tmp_path / 'positions.csv').write_text('\n'.join([header, *rows, '']))
    position_curves.draw(tmp_path / 'positions.csv', tmp_path / 'positions.svg', loss=True)
    [(lines, columns)] = drawn
    indices, (mean, low, high) = position_curves._line(lines[1024], columns, 8)
    assert indices.tolist() == [8 * k + 4.5 for k in range(128)]
    np.testing.assert_allclose(mean, indices / 1024)
    np.testing.assert_allclose([mean - low, high - mean], np.full((2, 128), 0.4 / 8**0.5))


def test_examples_must_be_the_same_for_every_metric(make):
    with pytest.raises(UserError, match='different examples'):
        compare(make('a'), make('b', seed=1, baseline=0.45), metric='exact_match')


def test_spelling_of_evaluated_lengths_does_not_matter(make):
    assert len(compare(make('a'), make('b', seed=1, eval__lengths='10,20,30,40,60,120')).rows) == 1


def test_unfinished_runs_are_left_out(make):
    done, busy, bare = make('a'), make('b', status='running'), make('c', seed=1)
    (bare / 'extrapolation.csv').unlink()
    comparison = compare(done.parent)
    assert [run.path for run in comparison.runs] == [done]
    assert str(left_out.grouped(comparison.left_out)) == f'2 runs in {done.parent}: b (running); c (not evaluated)'
    with pytest.raises(UserError, match=r'no finished run .* 1 run in .*: b \(running\)'):
        compare(busy)


def test_find(make, tmp_path):
    first, second = make('grid/cells/a'), make('grid/cells/b')
    (first / 'checkpoints').mkdir()
    (first / 'checkpoints' / 'config.json').write_text('{}')
    assert runs.find([tmp_path, first]) == [first, second]
    for missing in (tmp_path / 'nowhere', first / 'config.json', first / 'checkpoints' / '..' / 'none'):
        with pytest.raises(UserError, match='no directory'):
            runs.find([missing])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='no run in'):
        runs.find([tmp_path / 'empty'])


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('config.json', '{'),
        ('config.json', '[]'),
        ('extrapolation.csv', 'seed,length\n0,1\n'),
        ('extrapolation.csv', ','.join(runs.COLUMNS) + '\n0,10,high,0,0,0,1\n'),
        ('extrapolation.csv', ','.join(runs.COLUMNS) + '\n0,10,0,0,0,0,1\n0,10,0,0,0,0,1\n'),
    ],
)
def test_damaged_files_are_named(make, name, content):
    folder = make('a')
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(str(folder / name))):
        runs.read(folder)


@pytest.mark.parametrize(
    ('numbers', 'text'),
    [((5, 10, 20), '5,10,20'), ((5, 10, 15, 20, 25, 100), '5-25:5,100'), (range(1, 41), '1-40'), ((7,), '7')],
)
def test_compact(numbers, text):
    assert runs.compact(list(numbers)) == text
    assert lengths(text) == tuple(numbers)


def test_facts_say_how_the_numbers_came_about(make):
    line = table.facts(compare(make('a'), make('b', seed=1)))
    for fact in (
        'task reverse_string',
        'trained on lengths 1-20',
        'evaluated at 10,20,30,40,60,120',
        '64 examples per length',
        'accuracy per symbol',
        'mean ± 95 % t-interval over seeds 0,1, and maximum',
        'steps 100',
        'batch size 8',
        'learning rate 0.001',
        'attention in both directions',
    ):
        assert fact in line
    decoder = table.facts(compare(make('e', model__decoder_layers=2)))
    assert 'encoder in both directions, causal decoder' in decoder
    assert 'averaged over the lengths of a column' in decoder
    assert 'averaged over the lengths of a row' in table.summarise(runs.read(make('f')))
    assert 'learning rate varies' in table.facts(compare(make('c'), make('d', optimizer__learning_rate=0.1)))


def test_files(make, tmp_path):
    spec = 'randomize(64)|<b>&rope$x_1$'
    folders = [make(f'{i}', i / 4, seed=i % 2, model__position=('none', spec)[i // 2]) for i in range(4)]
    comparison = compare(*folders)
    output = tmp_path / 'new' / 'report'
    written = page.write(comparison, output)
    assert [path.name for path in written] == [
        *('table.csv', 'seeds.csv', 'results.csv', 'table.md', 'table.tex', 'curves.svg', 'curves.pdf', 'report.html')
    ]

    rows = list(csv.DictReader((output / 'table.csv').open()))
    assert [row['model.position'] for row in rows] == [spec, 'none']
    assert [float(rows[0][key]) for key in ('score_sd', 'score_baseline')] == [0.176777, 0.4]
    assert [float(rows[0][key]) for key in ('score', 'score_max', 'score_ci95')] == [0.625, 0.75, 1.588276]
    assert [row['beats_baseline'] for row in rows] == ['True', 'False']
    assert {row['metric'] for row in rows} == {'accuracy per symbol'}
    seeds = list(csv.DictReader((output / 'seeds.csv').open()))
    assert [(row['seed'], row['model.position'], row['score']) for row in seeds] == [
        ('0', spec, '0.5'),
        ('1', spec, '0.75'),
        ('0', 'none', '0.0'),
        ('1', 'none', '0.25'),
    ]
    assert {'score_baseline', '120', 'parameters'} <= seeds[0].keys()
    assert not {'score_ci95', 'score_max', 'seeds'} & seeds[0].keys()

    markdown = (output / 'table.md').read_text()
    assert r'randomize(64)\|&lt;b&gt;' in markdown
    assert '(max 0.750)' in markdown
    assert len({len(re.findall(r'(?<!\\)\|', line)) for line in markdown.splitlines() if line.startswith('|')}) == 1
    assert table.facts(comparison) in markdown

    ElementTree.parse(output / 'curves.svg')
    before = (output / 'curves.svg').read_bytes()
    page.write(comparison, output)
    assert (output / 'curves.svg').read_bytes() == before

    html = (output / 'report.html').read_text()
    assert not re.search(r'(src|href|url)\s*[=(]\s*["\']?(?!["\']?#|url\(#)', html)
    assert html.count('<script') == 2  # data and program; test_page.py has the tests of both
    assert '<b>' not in html
    assert html.count('class="static"><svg') == 1
    assert html.count('<svg class="dots"') == 2
    assert f'--output={output}' in html


def test_reports_of_other_runs_are_left_alone(make, undrawn, tmp_path):
    a, b, c = (make(name, seed=seed) for seed, name in enumerate(('grid/a', 'grid/b', 'c')))
    output = tmp_path / 'report'
    page.write(compare(a, b), output)
    page.write(compare(b, a, metric='exact_match'), output)
    page.write(compare(a, b, c), output)  # it grew
    before = {path: path.read_bytes() for path in output.iterdir()}
    for fewer in ((a, b), (c,), (a.parent,)):
        with pytest.raises(UserError, match=r'report holds the comparison of .* - choose another --output') as raised:
            page.write(compare(*fewer), output)
        assert all(str(folder) in str(raised.value) for folder in (a, b, c))
    assert {path: path.read_bytes() for path in output.iterdir()} == before


def test_a_place_is_compared_again(make, undrawn, tmp_path, monkeypatch):
    """Whatever has been added to it or removed, from wherever, and after it moved."""
    first, second = make('grid/a'), make('grid/b', seed=1)
    grid = first.parent
    page.write(compare(grid), grid / 'report')
    make('grid/c', seed=2)
    page.write(compare(grid), grid / 'report')
    shutil.rmtree(second)
    monkeypatch.chdir(tmp_path)
    moved = Path('moved')
    grid.rename(moved)
    page.write(compare(moved), moved / 'report')
    assert table.facts(compare(moved)) in (moved / 'report' / 'table.md').read_text()


@pytest.mark.parametrize(
    'name', ['table.csv', 'seeds.csv', 'table.md', 'pivot.tex', 'pairs.csv', 'curves.svg', 'report.html']
)
def test_files_of_others_are_left_alone(make, undrawn, tmp_path, name):
    (tmp_path / name).write_text('precious')
    with pytest.raises(UserError, match=f'{name} is there already'):
        page.write(compare(make('a')), tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]
    assert (tmp_path / name).read_text() == 'precious'


def test_output_that_is_a_file(make, undrawn, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot write to'):
        page.write(compare(make('a')), tmp_path / 'file')


@pytest.mark.parametrize('evaluated', [(40,), (5, 10), (1, 500), range(1, 101)])
def test_curves_for_any_lengths(make, tmp_path, evaluated):
    (run,) = runs.read(make('a', evaluated=evaluated, status='running'))
    plots.run_curve([run], tmp_path / 'extrapolation.svg')
    ElementTree.parse(tmp_path / 'extrapolation.svg')
    (axes,) = plots.figure(comparing.of_runs([run])).axes
    ticks = axes.get_xticks()
    assert set(ticks) <= set(evaluated)
    assert max(evaluated) in ticks
    assert axes.get_xscale() == ('log' if evaluated == (1, 500) or len(evaluated) == 100 else 'linear')


def test_a_diverged_run_and_many_rows(make):
    folders = [make(f'{i}', i / 20, model__position=f's{i}') for i in range(12)]
    rows = (folders[0] / 'extrapolation.csv').read_text().replace(str(math.log(2) * 120), 'nan')
    (folders[0] / 'extrapolation.csv').write_text(rows)
    comparison = compare(*folders, metric='loss')
    assert comparison.rows[-1].labels == ('s0',)
    assert 'nan' in table.text(comparison)
    ElementTree.fromstring(plots.curves(comparison))
    assert plots.figure(comparison).axes[0].get_legend() is not None


def test_curves_can_be_told_apart(make):
    folders = [make(f'{i}', i / 50, model__position=f's{i}') for i in range(40)]
    comparison = compare(*folders)
    looks = [(style['color'], str(style['linestyle']), style['marker']) for style in plots.styles(comparison)]
    assert len(set(looks)) == 40
    (axes,) = plots.figure(comparison).axes
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.lines}) > 5
    handles = axes.get_legend().legend_handles
    assert [handle.get_marker() for handle in handles[:40]] == [marker for *_, marker in looks]


def test_legends_stay_beside_their_panels(make):
    """And say everything that tells twenty schemes apart on five tasks."""
    tasks = ('reverse_string', 'bucket_sort', 'even_pairs', 'odds_first', 'parity_check')
    folders = [make(f'{i}-{task}', i / 30, model__position=f's{i}', task=task) for i in range(20) for task in tasks]
    drawing = plots.figure(compare(*folders))
    drawing.draw_without_rendering()
    boxes = [axes.get_legend().get_window_extent() for axes in drawing.axes]
    for upper, lower in itertools.pairwise(zip(boxes, drawing.axes, strict=True)):
        assert upper[0].y0 > lower[1].get_window_extent().y1


def test_labels_of_many_settings_are_distinct(make):
    def settings(i):
        names = ('heads', 'layers', 'dim', 'mlp_dim', 'remat_from', 'dropout_rate', 'norm')
        return {f'model__{name}': (i >> at) % 2 * 64 + 1 for at, name in enumerate(names)}

    folders = [make(f'{i}', i / 50, model__position=f's{i // 20}', **settings(i)) for i in range(40)]
    comparison = compare(*folders)
    labels = plots._labels(comparison)
    assert len(set(labels.values())) == 40
    assert not any('…' in label for label in labels.values())


def test_labels_do_not_overlap(make):
    folders = [make(f'{i}', 0.5 + i / 1000, model__position=f's{i}') for i in range(8)]
    (axes,) = plots.figure(compare(*folders)).axes
    heights = sorted(text.xyann[1] for text in axes.texts if hasattr(text, 'xyann'))
    assert len(heights) == 9
    assert min(np.diff(heights)) > 0.05
    assert 0 <= heights[0] < heights[-1] <= 1


def test_long_labels_widen_nothing(make):
    """They are broken and cut, take the room of their lines, and keep the end, where compositions differ."""
    long = "randomize(max_position=2048, test='average', draws=8)|t5(buckets=64, max_distance=512)|"
    folders = [make(f'{i}', 0.5 + i / 1000, model__position=f'{long}s{i}') for i in range(8)]
    (axes,) = plots.figure(compare(*folders)).axes
    labels = sorted((text for text in axes.texts if hasattr(text, 'xyann')), key=lambda text: text.xyann[1])
    assert [label.get_text() for label in labels[:2]] == [
        'baseline',
        'randomize(max_position=2048,\n…t5(buckets=64, max_distance=512)|s0',
    ]
    assert max(len(line) for label in labels for line in label.get_text().splitlines()) <= plots.WIDEST
    assert min(np.diff([label.xyann[1] for label in labels])[1:]) > 0.09
    (axes,) = plots.figure(compare(*folders, make('ninth', model__position=f'{long}none'))).axes
    assert axes.get_legend().get_texts()[-2].get_text().endswith('\n…(buckets=64, max_distance=512)|none')


@pytest.mark.parametrize(
    ('text', 'lines'),
    [
        ('rope', ['rope']),
        ('position=none, heads=4', ['position=none, heads=4']),
        ('a' * 37, ['…' + 'a' * 35]),
        ('a' * 30 + '|' + 'b' * 30, ['a' * 30 + '|', 'b' * 30]),
        ('a' * 30 + ', ' + 'b' * 30 + ', ' + 'c' * 30, ['a' * 30 + ',', '…' + 'b' * 3 + ', ' + 'c' * 30]),
        ('', ['']),
    ],
)
def test_wrapping(text, lines):
    assert plots.wrap(text).split('\n') == lines


def test_wide_intervals_do_not_flatten_the_curves(make):
    """Two seeds have an interval of 12.7 times their deviation: the panel shows what was measured."""
    folders = [make(f'{seed}', seed / 10, seed=seed) for seed in (0, 1)]
    rows = (folders[0] / 'extrapolation.csv').read_text().replace(f'{math.log(2) * 120}', '50')
    (folders[0] / 'extrapolation.csv').write_text(rows)
    (axes,) = plots.figure(compare(*folders, metric='loss')).axes
    low, high = axes.get_ylim()
    assert low < math.log(2) * 10
    assert math.log(2) * 120 < high < 1.1 * math.log(2) * 120
    (axes,) = plots.figure(compare(*folders)).axes
    assert axes.get_ylim() == (0, 1)
    (band,) = axes.collections
    assert 0 <= band.get_paths()[0].vertices[:, 1].min() < band.get_paths()[0].vertices[:, 1].max() <= 1


def test_summarise(make):
    text = table.summarise(runs.read(make('a', 0.5, status='running')))
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ['lengths', 'accuracy', 'exact', 'match', 'loss', 'baseline']
    # 32 of 128: (1/4 + z^2/256 -+ z sqrt(3/16 / 128 + (z/256)^2)) / (1 + z^2/128), z = 1.96
    interval = ['[0.183,', '0.332]']
    assert lines[2] == ['10-20', '(trained)', '1.000', '0.250', *interval, f'{math.log(2) * 15:.3f}', '0.400']
    assert lines[6][:3] == ['score', '(30-120)', '0.500']
    assert '95 % interval over the examples' in text


@pytest.mark.parametrize(('beyond', 'marks'), [(0.5, 0), (0.3, 2)])
def test_one_run_not_above_the_baseline_is_marked(make, beyond, marks):
    """On its score, and where the mark is explained."""
    text = table.summarise(runs.read(make('a', beyond)))
    assert text.count('†') == marks
    assert (f'{beyond:.3f} †' in text) == bool(marks)


def test_members_that_diverged_are_told(make):
    folder = make('a', population={'learning_rate': (1e-3, 10.0)})
    with (folder / 'extrapolation.csv').open() as file:
        first, *lines = file.read().splitlines()
    lines = [f'{first},learning_rate', *(f'{line},0.001' for line in lines)]
    (folder / 'extrapolation.csv').write_text('\n'.join(lines) + '\n')
    summary = json.loads((folder / 'summary.json').read_text())
    (folder / 'summary.json').write_text(json.dumps(summary | {'diverged': [{'seed': 0, 'learning_rate': 10.0}]}))
    last = table.summarise(runs.read(folder)).splitlines()[-1]
    assert last == f'left out 1 run in {folder.parent}: a (diverged: seed=0, learning_rate=10.0)'


def test_an_exact_match_that_was_not_measured_has_no_interval(make):
    text = table.summarise([with_column(make('a'), 'exact_match', ('',) * 6)])
    assert ' nan  ' in text
    assert text.count('[') == 0


def test_run_without_results_can_be_read(tmp_path: Path):
    (tmp_path / 'config.json').write_text('{"seed": 0, "model": {"heads": 8}}')
    (run,) = runs.read(tmp_path)
    assert run.status == 'not started'
    assert {'seed': 0, 'model.heads': 8}.items() <= run.config.items()


def test_how_a_run_is_computed_sets_no_runs_apart(make):
    one, other = make('a', train__microbatches=1), make('b', seed=1, train__microbatches=4)
    (row,) = compare(one, other).rows
    assert row.seeds == (0, 1)


@pytest.mark.parametrize(('examples', 'told'), [(8, True), (512, False)])
def test_a_baseline_of_few_examples_is_told(make, examples, told):
    assert ('on the same 8 examples' in table.text(compare(make('a', examples=examples)))) == told
