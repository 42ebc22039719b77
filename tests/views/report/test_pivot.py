"""Tables across two settings, choices and paired comparisons, on runs of known numbers."""

import csv
import io
import json

import pytest

from mha.spec import UserError
from mha.views.report import comparison, pivot


@pytest.fixture
def compared(make):
    """Two schemes on two tasks, two seeds each: rope wins one task and loses the other."""
    scores = {('rope', 'reverse_string'): 0.9, ('alibi', 'reverse_string'): 0.5, ('rope', 'bucket_sort'): 0.4}
    scores['alibi', 'bucket_sort'] = 0.8
    folders = [
        make(f'{scheme}{task}{seed}', beyond + 0.02 * seed, seed=seed, task=task, model__position=scheme)
        for (scheme, task), beyond in scores.items()
        for seed in (0, 1)
    ]
    return comparison.compare(folders)


def test_one_setting_down_and_another_across(compared):
    table = pivot.pivot(compared, ['position'], ['task'])
    assert table.columns == (('bucket_sort',), ('reverse_string',))
    headers, lines = pivot.grid(table)
    assert headers == ['position', 'bucket_sort', 'reverse_string', 'mean rank', 'MRR']
    (alibi, rope, baseline) = lines
    assert [line[0] for line in lines] == ['alibi', 'rope', 'baseline']
    assert rope[1].startswith('0.410 ± 0.127')
    assert alibi[2].startswith('0.510 ± 0.127')
    assert rope[3:] == alibi[3:] == ['1.50', '0.750']
    assert baseline[1:3] == ['0.400', '0.400']
    files = pivot.files(table)
    (_, second) = csv.DictReader(io.StringIO(files['pivot.csv']))
    assert float(second['reverse_string']) == pytest.approx(0.91)
    assert r'rope & 0.410 $\pm$ 0.127' in files['pivot.tex']


def test_rows_that_share_a_cell_are_refused(compared, make):
    rates = [make(f'rate{rate}', optimizer__learning_rate=rate, model__position='rope') for rate in (0.1, 0.2)]
    three = comparison.compare([*compared.paths, *rates])
    with pytest.raises(UserError, match=r'differ in optimizer\.learning_rate share a cell .* --best=optimizer'):
        pivot.pivot(three, ['task'], ['position'])
    with pytest.raises(UserError, match=r"unknown setting in --rows 'tsk' - did you mean 'task'"):
        pivot.pivot(compared, ['tsk'], ['position'])
    with pytest.raises(UserError, match='a table needs --rows'):
        pivot.pivot(compared, ['task'], ['task'])


def test_the_best_rate_is_chosen_by_the_trained_lengths_alone(make):
    """Rate 0.1 extrapolates better, 0.01 is better at the lengths that training met."""
    folders = []
    for rate, inside, beyond in ((0.1, 0.7, 0.9), (0.01, 0.99, 0.6)):
        for seed in (0, 1):
            folder = make(f'{rate}{seed}', beyond + 0.02 * seed, seed=seed, optimizer__learning_rate=rate)
            path = folder / 'extrapolation.csv'
            path.write_text(path.read_text().replace(',1.0,', f',{inside},'))
            folders.append(folder)
    chosen, lines = pivot.choose_best(comparison.compare(folders), 'learning_rate')
    assert [row.labels for row in chosen.rows] == [('0.01',)]
    assert lines == ['reverse_string: learning_rate 0.01 of 0.1, 0.01; max over all of these and seeds 0.920']
    assert chosen.best == 'optimizer.learning_rate'


def test_pairs_of_each_task(compared):
    tests = pivot.pairs(compared)
    assert {(task, pair.first, pair.second, pair.seeds) for task, pair in tests} == {
        ('reverse_string', 'rope', 'alibi', 2),
        ('bucket_sort', 'alibi', 'rope', 2),
    }
    assert all(pair.difference == pytest.approx(0.4) for _, pair in tests)
    assert all(pair.differs for _, pair in tests)  # the same difference for every seed
    assert '+0.400' in pivot.pairs_text(tests)
    assert len(pivot.pairs_csv(tests).splitlines()) == 3


def test_only_some_runs(compared):
    rope = comparison.compare(compared.paths, only=['model.position=rope', 'seed=0'])
    assert {row.labels for row in rope.rows} == {('reverse_string',), ('bucket_sort',)}
    assert all(row.seeds == (0,) for row in rope.rows)
    with pytest.raises(UserError, match="unknown value of seed in --only '7' "):
        comparison.compare(compared.paths, only=['seed=7'])


def test_cells_that_have_not_begun_are_named(make, tmp_path):
    folder = make('cells/one')
    sweep = folder.parents[1]
    lines = [f'{{"cell": "{name}", "overrides": {{}}}}\n' for name in ('one', 'two', 'three')]
    (sweep / 'manifest.jsonl').write_text(''.join(lines))
    (sweep / 'failures.jsonl').write_text('{"cell": "two", "error": ["out of memory"]}\n')
    left_out = {run.path.name: run.status for run in comparison.compare([sweep]).left_out}
    assert left_out == {'two': 'failed: out of memory', 'three': 'not started'}


def test_only_some_members_of_a_population(make):
    """Members that differ only in their seed share a run; conditions on the seed reach each of them."""
    folder = make('a')
    path = folder / 'extrapolation.csv'
    first, *rows = path.read_text().splitlines()
    others = [row.replace('0,', '1,', 1) for row in rows]
    path.write_text('\n'.join([first, *rows, *others, '']))
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps(config | {'population': {'seed': [0, 1]}}))
    assert comparison.compare([folder]).rows[0].seeds == (0, 1)
    (row,) = comparison.compare([folder], only=['seed=1', 'position=rope']).rows
    assert row.seeds == (1,)


def test_a_setting_that_does_not_vary_is_told_so(compared):
    with pytest.raises(UserError, match=r"'learning_rate' does not vary in these runs - choices: task, model"):
        pivot.choose_best(compared, 'learning_rate')
    with pytest.raises(UserError, match='name different settings'):
        pivot.pivot(compared, ['task', 'task'], ['position'])
