"""The page: what it embeds, how large it is, and how it behaves in a browser."""

import csv
import dataclasses
import io
import json
import re
import time
import xml.etree.ElementTree as ElementTree

import pytest

from mha.views.report import answer, comparison, embedded, page, runs
from tests.views import browser

NASTY = ('<script>window.broken=1</script>', r'a\_b', '100%', '</script><b>&amp;"\'')
"""Names that a page must show as they are."""


def written(compared, output):
    page.write(compared, output)
    return output / 'report.html'


def data_of(path):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)
    return json.loads(found[1])


# ---------------------------------------------------------------------------------------------------------------- data
def test_embedded_data(study):
    compared = comparison.compare([study(('rope', 'alibi'), ('reverse_string', 'bucket_sort'), 3)])
    data = embedded.page_data(compared)
    assert [len(data[name]) for name in ('rows', 'training', 'positions', 'problems')] == [4, 12, 1, 2]
    row, of = data['rows'][0], compared.rows[0]
    assert row['mean'] == pytest.approx(of.values.mean(0), rel=1e-4)
    assert data['training'][0]['step'] == list(range(10, 510, 10))
    (positions,) = data['positions']
    assert (positions['lengths'], positions['width'], positions['last']) == ([20, 60, 120], 2, 120)
    assert [len(line) for line in positions['values']] == [60] * 3
    assert positions['values'][0][10] is None
    assert positions['values'][0][0] == pytest.approx(1 - 1.5 / 90, abs=1e-3)


def test_training_curves_are_thinned(make):
    folder = make('a')
    lines = [json.dumps({'step': step, 'loss': 1 / step}) for step in range(1, 5001)]
    (folder / 'metrics.jsonl').write_text('\n'.join([*lines, '{"step": 50']))  # killed while it wrote
    (curve,) = embedded.training_curves(runs.read(folder)[0])
    assert (curve['step'][0], curve['step'][-1] > 4970, len(curve['step'])) == (1, True, embedded.POINTS - 1)
    assert set(curve['accuracy']) == {None}


def test_training_curves_of_members(make):
    folder = make('a', population={'seed': (3, 4)})
    lines = [json.dumps({'step': step, 'seed': seed, 'loss': seed}) for step in (10, 20, 30) for seed in (3, 4)]
    (folder / 'metrics.jsonl').write_text('\n'.join(lines))
    first, second = embedded.training_curves(runs.read(folder)[0])
    assert (first['seed'], first['step'], first['loss']) == (3, [10, 20, 30], [3, 3, 3])
    assert (second['seed'], second['loss']) == (4, [4, 4, 4])


@pytest.mark.parametrize('content', ['', 'x', '[]', '{"step": "1"}', '\n\n'])
def test_training_files_without_records(make, content):
    folder = make('a')
    (folder / 'metrics.jsonl').write_text(content)
    assert embedded.training_curves(runs.read(folder)[0]) == []


def test_positions_of_members(make):
    folder = make('a', population={'learning_rate': (0.1, 0.2)}, optimizer__learning_rate=0.1)
    results = (folder / 'extrapolation.csv').read_text().splitlines()
    lines = [f'{line},{rate}' for rate in (0.1, 0.2) for line in results[1:]]
    (folder / 'extrapolation.csv').write_text('\n'.join([f'{results[0]},learning_rate', *lines, '']))
    lines = [f'0,2,{at},{at * rate},8,0,1,{rate}' for rate in (0.1, 0.2) for at in (1, 2)]
    header = 'seed,length,position,accuracy,count,low,high,learning_rate'
    (folder / 'evaluation_2_positions.csv').write_text('\n'.join([header, *lines, '']))
    (folder / 'evaluation_9_positions.csv').write_text('seed,length\n0,1\n')
    data = embedded.page_data(comparison.compare([folder]))
    assert [(each['name'], each['values']) for each in data['positions']] == [
        ('evaluation_2', [[0.1, 0.2]]),
        ('evaluation_2', [[0.2, 0.4]]),
    ]


def test_names_are_text(make, tmp_path):
    folders = [make(f'{i}', i / 5, model__position=name) for i, name in enumerate(NASTY)]
    path = written(comparison.compare(folders), tmp_path / 'report')
    assert path.read_text().count('<script') == path.read_text().count('</script') == 2
    assert {row['labels'][0] for row in data_of(path)['rows']} == set(NASTY)


# -------------------------------------------------------------------------------------------------------------- answer
def test_answer(make):
    schemes = {'rope': 0.9, 'alibi': 0.5, 'none': 0.3}
    folders = [
        make(f'{scheme}{seed}', beyond + 0.001 * seed * len(scheme), seed=seed, model__position=scheme)
        for scheme, beyond in schemes.items()
        for seed in range(3)
    ]
    found = answer.answer(comparison.compare(folders))
    assert 'accuracy per symbol at lengths beyond the trained ones: 3 values of position (rope, alibi, none)' in (
        found.question
    )
    remark = 'baseline 0.400; differs from 2 of 2 other rows'
    assert found.best == [answer.Best('reverse_string', 'rope', '0.904 ± 0.010', remark)]
    assert found.differences.startswith('3 of 3 pairs of rows differ in paired t-tests')
    assert found.baseline == '2 of 3 rows exceed the baseline: rope; alibi.'
    assert len(found.differing) == 3


def test_answer_of_one_run(make):
    found = answer.answer(comparison.compare([make('a')]))
    assert found.best == [answer.Best('reverse_string', 'rope', '0.500', 'baseline 0.400')]
    assert found.differences == 'No differences are tested: no task has two rows.'
    assert found.baseline.startswith('Every row exceeds the baseline')
    found = answer.answer(comparison.compare([make('b', model__position='t5', baseline=0.6), make('c', baseline=0.6)]))
    assert 'no two rows of a task share two seeds' in found.differences
    assert found.best[0].remark == 'baseline 0.600'
    assert found.baseline.startswith('No row exceeds')
    found = answer.answer(comparison.compare([make('d', seed=1), make('e', task='bucket_sort', seed=1)]))
    assert found.differences == 'No differences are tested: no task has two rows.'


def test_answer_names_ties_and_single_seeds(make):
    equal = [make(f'{scheme}', 0.8, model__position=scheme, task='scan') for scheme in ('a', 'b', 'c')]
    tied = [
        make(f'{scheme} 2', beyond, model__position=scheme) for scheme, beyond in (('a', 0.9), ('b', 0.9), ('c', 0.1))
    ]
    seeds = [make(f'd {seed}', 0.2 + seed / 100, model__position='d', task='even_pairs', seed=seed) for seed in (0, 1)]
    alone = make('e', 0.9, model__position='e', task='even_pairs')
    found = {best.task: best for best in answer.answer(comparison.compare([*equal, *tied, *seeds, alone])).best}
    assert (found['scan'].row, found['scan'].score) == ('all 3 rows', '0.800')
    assert found['reverse_string'].row == 'a and 1 more'
    assert found['even_pairs'].remark.endswith('; one seed')


def test_answer_of_too_many_pairs(make, monkeypatch):
    monkeypatch.setattr(answer, 'MOST_PAIRS', 2)
    found = answer.answer(comparison.compare([make(f'{i}', model__position=f's{i}') for i in range(3)]))
    assert found.differences == 'No differences are tested: there are 3 pairs of rows.'


def test_the_title_counts_many_tasks(make, tmp_path):
    tasks = ('even_pairs', 'reverse_string', 'bucket_sort', 'parity')
    folders = [make(task, task=task) for task in tasks]
    assert '<h1>bucket_sort, even_pairs, reverse_string</h1>' in page.as_html(
        comparison.compare(folders[:3]), '<svg/>', tmp_path
    )
    assert '<h1>4 tasks</h1>' in page.as_html(comparison.compare(folders), '<svg/>', tmp_path)


# -------------------------------------------------------------------------------------------------------------- budget
@pytest.mark.slow
def test_five_hundred_runs(study, tmp_path):
    """20 schemes, 5 tasks and 5 seeds. Time of the processor, since a busy machine takes longer: about 10 s of it."""
    tasks = ('reverse_string', 'bucket_sort', 'even_pairs', 'odds_first', 'parity_check')
    lengths = (*range(5, 65, 5), 80, 100, 150, 200)
    folder = study([f'randomize(max_position=2048)|scheme{i}' for i in range(20)], tasks, 5, (8,), lengths, 1000)
    start = time.process_time()
    path = written(comparison.compare([folder]), tmp_path / 'report')
    assert time.process_time() - start < 30
    assert path.stat().st_size < 5_000_000
    assert len(data_of(path)['rows']) == 100


# ------------------------------------------------------------------------------------------------------------- browser
class Page(browser.Page):
    """Open report."""

    def find(self, words):
        from selenium.webdriver.common.by import By
        from selenium.webdriver.common.keys import Keys

        box = self.driver.find_element(By.ID, 'find')
        box.send_keys(Keys.CONTROL, 'a')
        box.send_keys(words or Keys.DELETE)
        self.settle()

    def column(self, index):
        """Text of a column in the rows that are shown, without the baseline."""
        return self.js(
            "[...document.querySelectorAll('#table tbody tr[data-row]:not([hidden])')]"
            '.map(line => line.cells[arguments[0]])'
            '.map(cell => (cell.querySelector(".name") || cell).textContent.trim())',
            index,
        )

    def lines(self, figure='curves'):
        return self.js('document.querySelectorAll(`#${arguments[0]} .series`).length', figure)


@pytest.fixture
def opened(driver, study, tmp_path):
    folder = study(('rope', 'alibi', 'none'), ('reverse_string', 'bucket_sort'), 2, (4, 8))
    shown = Page(driver, written(comparison.compare([folder]), tmp_path / 'report'))
    yield shown
    assert shown.errors() == []


@pytest.mark.slow
def test_figures_replace_the_drawing(opened):
    assert opened.js("document.querySelector('.static')") is None
    assert opened.lines() == 12
    assert opened.lines('training') == 24
    assert opened.texts('#curves .panels > svg > text:first-of-type') == ['bucket_sort', 'reverse_string']
    assert not opened.js("document.getElementById('positions').hidden")
    sizes = opened.js("[...document.querySelectorAll('.panels text')].map(each => +each.getAttribute('font-size'))")
    assert min(sizes) >= 11


@pytest.mark.slow
def test_the_longest_length_trained_and_one_training_record(driver, study, tmp_path):
    folder = study(('rope',), ('reverse_string',), 1, lengths=(10, 20), records=1)
    opened = Page(driver, written(comparison.compare([folder]), tmp_path / 'report'))
    words = "[...document.querySelectorAll('#curves .panels text')].filter(each => each.textContent === 'trained')"
    right = opened.js(f'{words}.map(each => each.ownerSVGElement.viewBox.baseVal.width - each.getBBox().x)')
    assert right
    assert min(right) > 40
    assert opened.js("document.querySelectorAll('#training .series circle').length") == 1


@pytest.mark.slow
def test_sorting(opened):
    heads = opened.texts('#table thead th')
    score = next(index for index, head in enumerate(heads) if head.startswith('score'))
    before = opened.column(score)

    def ways():
        return opened.js("[...document.querySelectorAll('#table th')].map(each => each.getAttribute('aria-sort'))")

    button = f'#table th:nth-child({score + 1}) button'
    opened.click(button)
    numbers = [float(cell.split()[0]) for cell in opened.column(score)]
    assert numbers == sorted(numbers, reverse=True)
    assert ways()[score] == 'descending'
    opened.click(button)
    numbers = [float(cell.split()[0]) for cell in opened.column(score)]
    assert numbers == sorted(numbers)
    assert ways()[score] == 'ascending'
    opened.click(button)
    assert opened.column(score) == before
    assert set(ways()) == {'none'}


@pytest.mark.slow
def test_headers_sort_by_keyboard(opened):
    from selenium.webdriver.common.keys import Keys

    opened.js("document.querySelector('#table th button').focus()")
    opened.driver.switch_to.active_element.send_keys(Keys.ENTER)
    opened.settle()
    assert opened.column(0) == sorted(opened.column(0))
    assert opened.js('location.hash') == '#sort=0%3Aup'


@pytest.mark.slow
def test_filters_apply_to_table_and_figures(opened):
    opened.find('rope heads=4')
    assert len(opened.column(0)) == 2
    assert (opened.lines(), opened.lines('training')) == (2, 4)
    assert opened.js("document.getElementById('count').textContent") == '2 of 12 rows'
    opened.find('')
    opened.choose('[id="only task"]', '=bucket_sort')
    assert len(opened.column(0)) == 6
    assert opened.js("document.querySelectorAll('#table .baseline:not([hidden])').length") == 1
    assert opened.texts('#curves .panels > svg > text:first-of-type') == ['bucket_sort']
    opened.find('nothing like this')
    assert (opened.column(0), opened.lines()) == ([], 0)
    opened.click('#reset')
    assert len(opened.column(0)) == 12
    assert opened.js('location.hash') == ''


@pytest.mark.slow
def test_legend_hides_lines(opened):
    rope = '[id="item model.position=rope"]'
    opened.click(rope)
    assert opened.lines() == 8
    assert opened.js('document.querySelector(arguments[0]).getAttribute("aria-pressed")', rope) == 'false'
    opened.click(rope)
    opened.click(rope, shift=True)
    assert opened.lines() == 4
    opened.click(rope, shift=True)
    assert opened.lines() == 12


@pytest.mark.slow
def test_state_is_restored_from_the_hash(opened):
    opened.click('#table th:nth-child(1) button')
    opened.find('bucket')
    opened.choose('#panels', 'model.heads')
    opened.click('[id="item model.position=none"]')
    hash, column, lines = opened.js('location.hash'), opened.column(0), opened.lines()
    assert {'sort=', 'find=bucket', 'panels=model.heads', 'hide='} <= {
        part.split('=')[0] + '=' + (part.split('=')[1] if part.startswith(('find', 'panels')) else '')
        for part in hash[1:].split('&')
    }
    opened.open(hash)
    assert (opened.column(0), opened.lines()) == (column, 4)
    assert lines == 4
    assert opened.texts('#curves .panels > svg > text:first-of-type') == ['heads=4', 'heads=8']
    opened.open('#sort=99:up&only=nothing=1&panels=nowhere&hide=x&scale=log')  # an older page
    assert opened.lines() == 12


@pytest.mark.slow
def test_values_by_keyboard(opened):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    panel = opened.driver.find_element(By.CSS_SELECTOR, '#curves .panels svg')
    panel.send_keys(Keys.ARROW_RIGHT)
    panel.send_keys(Keys.ARROW_LEFT)
    said = opened.js("document.getElementById('said').textContent")
    assert re.search(r'heads=\d, length \d+: \d\.\d+ ± \d', said)
    assert not opened.js("document.getElementById('tip').hidden")


@pytest.mark.slow
def test_bootstrap_intervals_are_read_and_drawn(driver, study, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    compared = comparison.compare([study(('rope', 'alibi'), ('reverse_string',), 3)])
    compared = dataclasses.replace(compared, interval='bootstrap')
    shown = Page(driver, written(compared, tmp_path / 'report'))
    shown.driver.find_element(By.CSS_SELECTOR, '#curves .panels svg').send_keys(Keys.ARROW_RIGHT)
    assert re.search(
        r'length \d+: \d\.\d+ \[\d\.\d+, \d\.\d+\]', shown.js("document.getElementById('said').textContent")
    )
    assert shown.js("document.querySelectorAll('#curves .band').length") == 2
    assert shown.errors() == []


@pytest.mark.slow
def test_panels_that_were_asked_for(driver, study, tmp_path):
    compared = comparison.compare([study(('rope', 'alibi'), ('reverse_string', 'bucket_sort'), 1, (4, 8))])
    for panels, titles in (('model.heads', ['heads=4', 'heads=8']), ('none', [])):
        output = tmp_path / panels
        shown = Page(driver, written(dataclasses.replace(compared, panels=panels), output))
        found = shown.texts('#curves .panels > svg > text:first-of-type')
        assert [text for text in found if 'heads' in text] == titles
        assert shown.js("document.getElementById('panels').value") == panels
        assert shown.lines() == 8
        assert shown.js('location.hash') == ''
        assert shown.errors() == []


@pytest.mark.slow
def test_files_to_save(opened):
    records = list(csv.DictReader(io.StringIO(opened.js('window.report.csvText()'))))
    assert len(records) == 24 * 6
    assert {'task', 'model.position', 'model.heads', 'seed', 'length', 'accuracy'} == records[0].keys()
    for figure in ('curves', 'training', 'positions'):
        drawn = opened.js('window.report.svgText(arguments[0])', figure)
        ElementTree.fromstring(drawn)
        assert 'var(' not in drawn


@pytest.mark.slow
def test_what_follows_from_the_task_is_in_no_name(driver, make, tmp_path):
    """It can be filtered by, and chosen for panels."""
    heads = {'reverse_string': 2, 'bucket_sort': 4}
    folders = [
        make(f'{task}{scheme}', task=task, model__position=scheme, model__heads=heads[task])
        for task in heads
        for scheme in ('rope', 't5')
    ]
    shown = Page(driver, written(comparison.compare(folders), tmp_path / 'report'))
    assert shown.texts('#legend button[aria-pressed]') == ['rope', 't5']
    assert 'heads' not in shown.texts('#table th button')
    shown.find('heads=2')
    assert len(shown.column(0)) == 2
    shown.choose('#panels', 'model.heads')
    assert shown.texts('#curves .panels > svg > text:first-of-type') == ['heads=2']
    shown.choose('#line', 'none')
    shown.choose('#colour', 'row')
    assert shown.texts('#legend button[aria-pressed]') == ['rope', 't5']
    assert shown.errors() == []


@pytest.mark.slow
def test_names_are_shown_as_text(driver, make, tmp_path):
    folders = [make(f'{i}', i / 5, model__position=name) for i, name in enumerate(NASTY)]
    shown = Page(driver, written(comparison.compare(folders), tmp_path / 'report'))
    assert set(shown.column(0)) == set(NASTY)
    assert set(shown.texts('#legend button[aria-pressed]')) == set(NASTY)
    assert shown.js('window.broken') is None
    assert shown.errors() == []


@pytest.mark.slow
@pytest.mark.parametrize('metric', ['loss', 'exact_match'])
def test_a_single_run_and_other_metrics(driver, make, tmp_path, metric):
    shown = Page(driver, written(comparison.compare([make('a')], [metric]), tmp_path / 'report'))
    assert shown.lines() == 1
    assert shown.errors() == []


@pytest.mark.slow
def test_rows_of_other_trained_lengths(driver, make, tmp_path):
    """Every curve has a tick at its longest trained length."""
    folders = [make('a'), make('b', 0.7, train__lengths='1-10'), make('c', 0.6, seed=1)]
    shown = Page(driver, written(comparison.compare(folders), tmp_path / 'report'))
    assert shown.lines() == 2
    assert shown.js('document.querySelectorAll(\'#curves path[stroke-width="2.2"]\').length') == 2
    assert shown.errors() == []


@pytest.mark.slow
@pytest.mark.parametrize('evaluated', [(40,), (1, 500), tuple(range(1, 101))])
def test_any_lengths(driver, make, tmp_path, evaluated):
    shown = Page(driver, written(comparison.compare([make('a', evaluated=evaluated)]), tmp_path / 'report'))
    assert shown.texts('#curves text')[-1:] != []
    assert 'NaN' not in shown.js("document.getElementById('curves').innerHTML")
    assert shown.errors() == []


@pytest.mark.slow
def test_narrow_screens_do_not_scroll_sideways(opened):
    """390 px is the width of a phone. Chromium has no narrower window than 500 px, but emulates one."""
    opened.driver.execute_cdp_cmd(
        'Emulation.setDeviceMetricsOverride', {'width': 390, 'height': 844, 'deviceScaleFactor': 2, 'mobile': True}
    )
    try:
        opened.open()
        assert opened.js('document.documentElement.scrollWidth') <= 390
        assert opened.js("document.querySelector('.panels svg').getBoundingClientRect().width") <= 390
    finally:
        opened.driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
