"""What a report says about runs that are not like the others: diverged, made elsewhere, or made by a stranger."""

import csv
import io
import json
import sys

import pytest

from mha import cli
from mha.views.report import comparison, page, table

HOSTILE = '\x1b[31m\u202e</script><b>&$\\x{|'


def test_a_mean_of_survivors_says_that_it_is_one(make):
    """Runs of the same settings count, those of others do not."""
    folders = [make(f's{seed}', seed=seed) for seed in range(2)]
    folders += [make(f'd{seed}', seed=seed, status='diverged') for seed in (2, 3)]
    folders += [make('other', seed=4, status='diverged', optimizer__learning_rate=10.0)]
    compared = comparison.compare([folders[0].parent])
    (row,) = compared.rows
    assert (row.seeds, row.diverged) == ((0, 1), 2)
    text = table.text(compared)
    assert '2 of 4 seeds' in text
    assert '§ the other seeds diverged' in text
    assert '0.500 §' in text
    (line,) = csv.DictReader(page.as_csv(compared).splitlines())
    assert (line['seeds'], line['diverged']) == ('2', '2')
    assert '§' not in table.text(comparison.compare(folders[:2]))


def test_other_versions_and_changed_code_are_told(make):
    folders = [make(f's{seed}', seed=seed) for seed in range(3)]
    for folder, version, changed in zip(folders, ('0.10.1', '0.10.1', '0.10.2'), (False, True, False), strict=True):
        environment = {'versions': {'jax': version, 'numpy': '2'}, 'changed': changed}
        (folder / 'environment.json').write_text(json.dumps(environment))
    text = table.text(comparison.compare(folders))
    assert '1 of 3 runs were made with other versions (jax 0.10.1, 0.10.2)' in text
    assert '1 of 3 runs were made with uncommitted changes to the code' in text
    assert 'versions' not in table.text(comparison.compare(folders[:1]))


def test_texts_of_a_stranger_are_shown_in_every_form(make, undrawn, tmp_path):
    folders = [make('a', model__position=HOSTILE), make('b', model__position='=1+1')]
    compared = comparison.compare(folders)
    written = {path.name: path.read_bytes() for path in page.write(compared, tmp_path / 'report')}
    texts = [table.text(compared), *(written[f'table.{kind}'].decode() for kind in ('csv', 'md', 'tex'))]
    for text in (*texts, written['report.html'].decode()):
        assert '\\u001b[31m\\u202e' in text.replace('\\textbackslash{}', '\\')
        assert '\x1b' not in text
        assert '\u202e' not in text
    assert '<b>' not in written['report.html'].decode() + written['table.md'].decode()
    assert {line['model.position'][:3] for line in csv.DictReader(io.StringIO(texts[1]))} == {"'=1", '\\u0'}


def test_a_terminal_is_shown_what_it_would_obey(monkeypatch, capsys):
    def main():
        print(f'a\tb\n{HOSTILE}\udcff\x9b')
        print('\x1b[2J', file=sys.stderr)

    monkeypatch.setattr(sys, 'argv', ['compare.py'])
    cli.run(main)
    said = capsys.readouterr()
    assert said.out == f'a\tb\n\\u001b[31m\\u202e{HOSTILE[6:]}\\udcff\\u009b\n'
    assert said.err == '\\u001b[2J\n'


@pytest.mark.parametrize('name', ['environment.json', 'summary.json', 'config.json', 'extrapolation.csv'])
def test_a_damaged_file_costs_its_run_alone(make, name):
    folders = [make(f's{seed}', seed=seed) for seed in range(2)]
    (folders[1] / name).write_text('[' * 10**5)
    compared = comparison.compare([folders[0].parent])
    assert [run.path for run in compared.runs] == folders[:1]
    (lost,) = compared.left_out
    assert str(folders[1] / name) in lost.status


def test_confusions_are_no_evaluations(make):
    folder = make('a')
    rows = (folder / 'extrapolation.csv').read_text()
    (folder / 'evaluation_10_64-examples.csv').write_text(rows)
    (folder / 'evaluation_10_64-examples_confusion.csv').write_text('seed,length,true,predicted,count\n0,10,a,b,1\n')
    assert comparison.evaluations(folder) == ['evaluation_10_64-examples.csv']
