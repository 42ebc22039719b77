"""Data files of any kind, whole or damaged, and what is no file: a corpus is prepared, or refused in one line, in
little time and memory."""

import gzip
import json
import os
import random
import shutil
import socket
import struct

import pytest

from mha import datasets
from mha.spec import UserError
from tests.faults.test_input import Late, limited, one_line

pytestmark = pytest.mark.slow

CASES = 1000
WORDS = [
    '',
    ' ',
    'a',
    'good',
    'bad',
    'Bitte warten.',
    '\u00e4\u00f6',
    '\U0001f600',
    '\u2028',
    '\x00',
    '\x1b[31m',
    '=1+1',
    '"',
    "'",
    'a"b',
    'a,b',
    '\ufeff',
    '1e999',
]
JSON = [
    '1',
    '-1.5',
    '1e999',
    'NaN',
    'true',
    'null',
    '[]',
    '{}',
    '"x"',
    '1' * 5000,
    '[' * 5000 + ']' * 5000,
    '"\\ud800"',
    '{"a":' * 3000,
]
ENCODINGS = ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-32', 'latin-1', 'cp1252', 'shift-jis', 'utf-7']
SUFFIXES = {
    'documents': ['.txt', '', '.csv'],
    'labelled': ['.csv', '.tsv', '.jsonl', '.txt', '.CSV'],
    'pairs': ['.tsv', '.po', '.mo', '.en', '.csv'],
}


def table(rng, separator, header):
    rows = [header] if header and rng.random() < 0.9 else []
    for _ in range(rng.randint(0, 30)):
        rows.append([rng.choice(WORDS) for _ in range(rng.choice((2, 2, 2, 2, 2, 2, 1, 3, 50)))])
    return rng.choice(('\n', '\n', '\r\n', '\r')).join(separator.join(row) for row in rows)


def objects(rng):
    lines = []
    for _ in range(rng.randint(0, 30)):
        text, label = (rng.choice(JSON) if rng.random() < 0.2 else json.dumps(rng.choice(WORDS)) for _ in range(2))
        lines.append(f'{{"text": {text}, "{rng.choice(("label",) * 9 + ("text",))}": {label}}}')
    return '\n'.join(lines)


def catalogue(rng):
    fields = [
        'msgid',
        'msgid',
        'msgstr',
        'msgstr',
        'msgctxt',
        'msgid_plural',
        'msgstr[0]',
        'msgstr[1]',
        'msgstr[99]',
        '',
        '#~',
        '#, fuzzy',
        'domain',
    ]
    usual = ['msgid "{}"\nmsgstr "{}"\n'.format(*rng.sample(WORDS, 2)) for _ in range(rng.randint(0, 30))]
    return '\n'.join(usual + [f'{rng.choice(fields)} "{rng.choice(WORDS)}"' for _ in range(rng.randint(0, 9))])


def compiled(rng):
    """A `.mo` file in either byte order."""
    order, texts = rng.choice('<>'), [rng.choice(WORDS).encode() for _ in range(2 * rng.randint(0, 9))]
    count, start, heads, body = len(texts) // 2, 28 + 8 * len(texts), b'', b''
    for text in texts:
        heads, body = heads + struct.pack(f'{order}2I', len(text), start + len(body)), body + text + b'\0'
    numbers = [0x950412DE, 0, count, 28, 28 + 8 * count, 0, 0]
    if rng.random() < 0.3:
        numbers[rng.randrange(2, 5)] = rng.choice((0, 1, 2**31, 2**32 - 1, 24))
    return struct.pack(f'{order}7I', *numbers) + heads + body


def written(rng, suffix, kind):
    """Content that suits a file, mostly."""
    if suffix == '.mo':
        return compiled(rng)
    if suffix == '.po':
        text = catalogue(rng)
    elif suffix == '.jsonl':
        text = objects(rng)
    else:
        header = ['text', 'label'] if kind == 'labelled' else []
        text = table(rng, ',' if suffix.lower() == '.csv' else '\t', header)
    return text.encode(rng.choice(ENCODINGS) if rng.random() < 0.3 else 'utf-8', 'ignore')


def spoiled(rng, content):
    """Content with one fault, or none."""
    place = rng.randint(0, len(content))
    return rng.choice(
        (
            lambda: content,
            lambda: content,
            lambda: content[:place],
            lambda: content[place:],
            lambda: content[:place] + rng.randbytes(rng.choice((1, 4, 200))) + content[place:],
            lambda: content[:place] + b'\0' * rng.choice((1, 5000)) + content[place:],
            lambda: content[:place] + b'"' + content[place:],
            lambda: content[:place] + rng.choice((b'x', b'"', b'\\', b'[', b'\xff', b'\n', b'\t', b' ')) * 3_000_000,
            lambda: rng.randbytes(2000),
            lambda: b'',
        )
    )()


def no_file(rng, path):
    """Something at `path` that is no regular file."""
    kind = rng.choice(('fifo', 'socket', 'device', 'directory', 'dangling', 'loop', 'endless', 'memory'))
    if kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'socket':
        with socket.socket(socket.AF_UNIX) as server:
            here = os.open(path.parent, os.O_RDONLY)  # a path as such would be too long for a socket
            server.bind(f'/proc/self/fd/{here}/{path.name}')
            os.close(here)
    elif kind == 'directory':
        path.mkdir()
    else:
        target = {'device': '/dev/zero', 'dangling': 'nowhere', 'loop': path.name, 'endless': '/dev/random'}
        path.symlink_to(target.get(kind, '/proc/self/mem'))


def prepared(number, folder):
    """A call that prepares a corpus from files that it makes in `folder`, and what it reads."""
    rng = random.Random(number)
    kind = rng.choice(sorted(SUFFIXES))
    suffix = rng.choice(SUFFIXES[kind])
    names = rng.sample(
        ('a', 'train', 'test', 'validation', 'a b', '[x]', '-', '*', 'a\nb', '\udcff', '\u00e4', '=1'),
        rng.randint(1, 3),
    )
    for name in names:
        path = folder / rng.choice(('', '', 'good', 'bad', 'train_set', 'train_set/good')) / f'{name}{suffix}'
        path.parent.mkdir(parents=True, exist_ok=True)
        if rng.random() < 0.1:
            no_file(rng, path)
            continue
        content = spoiled(rng, written(rng, suffix, kind))
        if rng.random() < 0.15:
            path = path.with_name(f'{path.name}.gz')
            content = spoiled(rng, gzip.compress(content)) if rng.random() < 0.5 else content
        path.write_bytes(content)
    data = rng.choice((str(folder), f'{folder}/**/*', f'{folder}/*{suffix}', str(path)))
    if kind == 'pairs' and rng.random() < 0.2:
        data = f'{folder}/*.en,{folder}/*{suffix}'
    options = {'strict': True} if kind != 'documents' and rng.random() < 0.2 else {}
    return lambda: getattr(datasets, kind)(data, **options)


def outcome(number, folder):
    """`'prepared'`, `'refused'`, or what is wrong with the answer to files."""
    call = prepared(number, folder)
    try:
        with limited():
            call()
    except UserError as error:
        return 'refused' if one_line(str(error)) else f'is refused with the words {error}'
    except Late:
        return 'takes too long'
    except BaseException as error:
        return f'ends in {type(error).__name__}: {error}'
    return 'prepared'


def test_a_corpus_is_prepared_or_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('MHA_CACHE', str(tmp_path / 'cache'))
    outcomes = {}
    for number in range(CASES):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcomes[number] = outcome(number, folder)
        shutil.rmtree(folder)
        shutil.rmtree(tmp_path / 'cache', ignore_errors=True)
    wrong = {number: text for number, text in outcomes.items() if text not in ('prepared', 'refused')}
    with capsys.disabled():
        made = sum(text == 'prepared' for text in outcomes.values())
        print(f'\n{CASES} sets of files: {made} prepared, {CASES - made - len(wrong)} refused, {len(wrong)} neither')
    assert not wrong, [f'prepared({number}) {text}' for number, text in wrong.items()]
    assert made > CASES / 10
