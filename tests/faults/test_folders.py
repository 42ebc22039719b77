"""Run folders that are damaged or made by a stranger, given to those who read them: a comparison and an evaluation.

Each damage works, or leaves out the damaged run by name, or ends in one `UserError`, within `SECONDS`. One process
reads all of them: `pytest -m slow tests/faults/test_folders.py -s` prints how they ended.
"""

import collections
import json
import math
import os
import random
import re
import shutil
import time
from pathlib import Path

import pytest

import mha
from mha.run import log, manifest, workdir
from mha.spec import UserError
from mha.views.report import comparison, left_out, page, plots, table

STORED = Path(__file__).parents[1] / 'runs' / 'alibi'
SECONDS = 60
ESCAPE = '\x1b[31m\u202e\udcff</script><b>&\x9b'
VALUES = (
    *(None, True, '', 'text', ESCAPE, '=1+1', '/dev/zero', "lm('/dev/zero')", '1-10000000', 'x' * 10**5),
    *(0, -1, 3, 2**31, 2**63, 10**400, 0.5, 1e308, -1e-308, math.nan, math.inf, -math.inf),
    *(
        [],
        [None],
        [1, 2],
        [2, 1],
        ['a'],
        [[1]],
        [10**400, 1],
        {},
        {'a': 1},
        {'a': {'a': 1}},
        [{'seed': 1}],
        [{'a': []}],
    ),
)
"""Values of fields of JSON."""
TEXTS = (
    '',
    'nan',
    'inf',
    '-inf',
    '-1',
    '2',
    '0.5',
    '1e308',
    '1e-320',
    '9' * 5000,
    'text',
    '=1+1',
    ESCAPE,
    '"',
    '\0',
    '٣',
)
"""Values of fields of csv."""
RESULTS = 'seed,length,accuracy,exact_match,loss,baseline,examples'
POSITIONS = 'seed,length,position,accuracy,count,low,high,loss,loss_low,loss_high'


def grid(folder):
    """Sweep of three cells, with all files that a comparison reads."""
    for seed, name in enumerate('abc'):
        cell = folder / 'cells' / name
        cell.mkdir(parents=True)
        config = json.loads((STORED / 'config.json').read_text())
        (cell / 'config.json').write_text(json.dumps(config | {'seed': seed}))
        shutil.copy(STORED / 'environment.json', cell)
        summary = {'status': 'finished', 'steps': 20, 'parameters': 10, 'trained_lengths': [1, 6], 'metric': 'accuracy'}
        summary |= {'diverged': [], 'chance': 0.2, 'data_sha256': '', 'data_train_bytes': 5, 'data_test_bytes': 5}
        (cell / 'summary.json').write_text(json.dumps(summary))
        rows = ''.join(f'{seed},{length},0.5,0.25,1.5,0.4,16\n' for length in (4, 8))
        (cell / 'extrapolation.csv').write_text(f'{RESULTS}\n{rows}')
        (cell / 'evaluation_4_8_16-examples.csv').write_text(f'{RESULTS}\n{rows}')
        places = ''.join(f'{seed},{length},1,0.5,16,0.4,0.6,1,0.9,1.1\n' for length in (4, 8))
        (cell / 'evaluation_4_8_16-examples_positions.csv').write_text(f'{POSITIONS}\n{places}')
        lines = ''.join(json.dumps({'step': 10 * step, 'loss': 1.5, 'accuracy': 0.5}) + '\n' for step in range(1, 4))
        (cell / 'metrics.jsonl').write_text(lines)
    cells = ''.join(json.dumps({'cell': name, 'config': '', 'overrides': {'seed': 1}}) + '\n' for name in 'abcd')
    (folder / 'manifest.jsonl').write_text(cells)
    (folder / 'failures.jsonl').write_text(json.dumps({'cell': 'd', 'exit_code': 1, 'tries': 1, 'error': ['x']}) + '\n')
    return folder


# ------------------------------------------------------------------------------------------------------------- damages
def replaced(path, make):
    path.unlink(missing_ok=True)
    make(path)


def looped(path):
    path.symlink_to(path)


WHOLE = {
    'missing': lambda path: path.unlink(),
    'empty': lambda path: path.write_text(''),
    'a directory': lambda path: replaced(path, Path.mkdir),
    'a pipe': lambda path: replaced(path, os.mkfifo),
    'a link to itself': lambda path: replaced(path, looped),
    'a link to a device': lambda path: replaced(path, lambda path: path.symlink_to('/dev/zero')),
    'a link to nothing': lambda path: replaced(path, lambda path: path.symlink_to('nothing')),
    'with a byte-order mark': lambda path: path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes()),
    'in UTF-16': lambda path: path.write_bytes(path.read_text().encode('utf-16')),
    'with CRLF': lambda path: path.write_bytes(path.read_bytes().replace(b'\n', b'\r\n')),
    'binary': lambda path: path.write_bytes(bytes(range(256)) * 100),
    'with a zero byte': lambda path: path.write_bytes(path.read_bytes().replace(b'1', b'\0', 1)),
    'nested': lambda path: path.write_text('[' * 10**5),
    'nested objects': lambda path: path.write_text('{"a":' * 900 + '1' + '}' * 900),
    'a number': lambda path: path.write_text('1' * 10**6),
    'twice': lambda path: path.write_bytes(path.read_bytes() * 2),
    'of an object twice': lambda path: path.write_bytes(path.read_bytes().replace(b'{', b'{"seed": 3, "seed": 4, ', 1)),
    'null': lambda path: path.write_text('null'),
    'a line of objects': lambda path: path.write_text('{}\n[]\n3\n'),
    'large': lambda path: (path.unlink(), path.touch(), os.truncate(path, 2**30)),
}
"""Damages of a whole file."""


def truncated(path, draws):
    content = path.read_bytes()
    path.write_bytes(content[: draws.randrange(len(content))])


def with_value(path, draws):
    """Gives a random field of JSON, or of the last line of JSON, a random value, or none."""
    *lines, last = path.read_text().strip().splitlines() if path.suffix == '.jsonl' else [path.read_text()]
    content = json.loads(last)
    inside = content
    while True:
        key = draws.choice([*inside, *(['diverged', 'population'] * (inside is content))])
        if not isinstance(inside.get(key), dict) or not inside[key] or draws.random() < 0.2:
            break
        inside = inside[key]
    value = draws.choice((*VALUES, KeyError))
    inside.pop(key, None)
    if value is not KeyError:
        inside[key] = value
    path.write_text('\n'.join([*lines, json.dumps(content), '']))
    return f'{key}={str(value)[:40]!r}'


def with_cell(path, draws):
    """Changes a random cell of a table, its number of cells, or its columns."""
    header, *rows = [line.split(',') for line in path.read_text().splitlines()]
    index, row = draws.randrange(len(header)), draws.choice(rows)
    kind = draws.choice(
        ('value', 'value', 'value', 'value', 'short', 'long', 'column twice', 'column gone', 'row twice')
    )
    text = draws.choice(TEXTS)
    if kind == 'value':
        row[index] = text
    elif kind in ('short', 'long'):
        row[index:index] = [text] * (kind == 'long')
        del row[index : index + (kind == 'short')]
    elif kind == 'column twice':
        header[index - 1] = header[index]
    elif kind == 'column gone':
        for each in (header, *rows):
            del each[index]
    else:
        rows.append(row)
    path.write_bytes('\n'.join(map(','.join, [header, *rows, ['']])).encode(errors='surrogateescape'))
    return f'{kind} {header[index % len(header)]} {text[:40]!r}'


def damage(folder, names, draws, number):
    """Damages one file of a folder, and returns what was done. The first cases are all damages of whole files."""
    whole = [(name, kind) for name in names for kind in WHOLE]
    if number < len(whole):
        name, kind = whole[number]
        WHOLE[kind](folder / name)
        return f'{name} {kind}'
    path = folder / draws.choice(names)
    change = draws.choice((truncated, *[with_cell if path.suffix == '.csv' else with_value] * 5))
    return f'{path.name} {change.__name__} {change(path, draws) or ""}'


# --------------------------------------------------------------------------------------------------------------- tests
def clean(text):
    assert not re.search('[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]', text), ascii(text[:500])


def judged(outcomes, case, read):
    """Calls `read` and counts how it ended. Raises an error that names the case for a bad end."""
    start, message = time.perf_counter(), ''
    try:
        outcome = read()
    except UserError as error:
        outcome, message = 'refused', str(error)
    except Exception as error:
        raise AssertionError(f'{case}: {type(error).__name__}: {error}') from error
    assert len(message) <= 4000, f'{case}: {message[:2000]}'
    clean(message)
    seconds = time.perf_counter() - start
    assert seconds < SECONDS, f'{case} took {seconds:.1f} s'
    outcomes[outcome] += 1


def undrawn(monkeypatch):
    monkeypatch.setattr(plots, 'figure', lambda comparison: None)
    monkeypatch.setattr(plots, 'as_svg', lambda drawing: '<svg width="1pt" viewBox="0 0 1 1"></svg>')
    monkeypatch.setattr(plots, 'as_pdf', lambda drawing: b'%PDF')


@pytest.mark.slow
def test_comparisons(tmp_path, monkeypatch):
    undrawn(monkeypatch)
    draws, outcomes, total = random.Random(0), collections.Counter(), 600
    names = ['config.json', 'summary.json', 'environment.json', 'extrapolation.csv', 'metrics.jsonl']
    names += ['evaluation_4_8_16-examples_positions.csv', '../../manifest.jsonl', '../../failures.jsonl']
    original = grid(tmp_path / 'original')
    for number in range(total):
        folder = tmp_path / str(number)
        shutil.copytree(original, folder)
        case = damage(folder / 'cells' / 'c', names, draws, number)

        def read(folder=folder):
            compared = comparison.compare([folder])
            assert {'a', 'b'} <= {run.path.name for run in compared.runs}
            page.write(compared, folder / 'report')
            clean(table.text(compared))
            clean(str(left_out.grouped(compared.left_out)) if compared.left_out else '')
            lost = {run.path.name: run.status for run in compared.left_out}
            return 'left out' if 'c' in lost else 'read'

        judged(outcomes, f'{number}: {case}', read)
        shutil.rmtree(folder)
    print(f'\n{total} comparisons: {dict(outcomes)}')
    assert outcomes['read'] > 50 < outcomes['left out']


@pytest.mark.slow
def test_evaluations(tmp_path):
    draws, outcomes, total = random.Random(1), collections.Counter(), 300
    names = ['config.json', 'summary.json', 'environment.json', 'extrapolation.csv', 'metrics.jsonl']
    for number in range(total):
        folder = tmp_path / str(number)
        shutil.copytree(STORED, folder)
        case = damage(folder, names, draws, number)

        def read(folder=folder):
            run = mha.load(folder)
            assert run.rows is not None
            workdir.started_from(folder)
            log.read(folder / 'metrics.jsonl')
            manifest.read(folder)
            return 'read'

        judged(outcomes, f'{number}: {case}', read)
        shutil.rmtree(folder)
    print(f'\n{total} evaluations: {dict(outcomes)}')
    assert outcomes['read'] > 20 < outcomes['refused']
