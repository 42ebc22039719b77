"""Sources in files of the user: documents, labelled texts and sentence pairs, by suffix. A file may end in `.gz`.

    documents   any files, such as `notes/*.txt`
    labelled    `.csv`, `.tsv` with a header, `.jsonl`; any other file is one text, labelled by its folder
    pairs       `.tsv` of two columns without a header, `.po` and `.mo` (`catalogue_files`), and parallel files, line by
                line: `'corpus.en,corpus.de'`

Text is UTF-8, except in documents, which are bytes. Quotes mean something in `.csv` only. Lines without a character are
no rows. If files, or their folders, are named train and test (or validation), these are the splits.
"""

import csv
import dataclasses
import glob
import gzip
import io
import itertools
import json
import math
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from mha.datasets import catalogue_files
from mha.datasets.corpus import Split
from mha.datasets.preparation import FOLD, Malformed, Row, Source
from mha.spec import UserError

BLOCK = 2**20
"""Largest number of bytes in one record of a document."""
LONGEST = 2**24
"""Largest number of characters in a field of a `.csv`: a quote that is never closed ends there."""
BY_NAME = 'by the names of the files'
DAMAGED = (OSError, EOFError, zlib.error)
"""Errors of reading a file, compressed or not."""
BY_HASH = f'one text in {FOLD} is test data, by its sha256'
SUFFIXES = ('.txt', '.csv', '.tsv', '.jsonl', '.po', '.mo', '.gz')
"""Ends of names that are paths, not data sets."""
_FOREIGN = {
    b'\xff\xfe': 'UTF-16 - save it as UTF-8',
    b'\xfe\xff': 'UTF-16 - save it as UTF-8',
    b'\x1f\x8b': 'compressed by gzip - let its name end in .gz',
}
"""First bytes of files that are no UTF-8 text, and what these are."""
_NAMED = re.compile(r'(train|test|validation|valid|val|dev)(?![a-z])')

Files = dict[str, Path]
"""Files by their paths below their common directory, in the order of these."""
Rows = Iterator[Row | Malformed]


# ----------------------------------------------------------------------------------------------------------------- find
def exist(data: str) -> bool:
    """Whether `data` names files, not a data set."""
    return any(_matches(pattern) for pattern in (data, *data.split(',')))


def _matches(pattern: str) -> list[str]:
    pattern = os.path.expanduser(pattern)
    return [pattern] if os.path.lexists(pattern) else glob.glob(pattern, recursive=True)


def find(pattern: str, inside: Iterable[str] = ('**/*',)) -> tuple[Path, Files]:
    """Files that match a glob, with their common directory; for a directory, those that match `inside` it. Empty files
    are left out."""
    matches = [Path(os.path.abspath(match)) for match in _matches(pattern)]
    if len(matches) == 1 and matches[0].is_dir():
        matches = [*dict.fromkeys(path for each in inside for path in matches[0].glob(each))]
        if not matches:
            raise UserError(f'the directory {pattern!r} has no file {" or ".join(inside)}')
    paths = [path for path in matches if not path.is_dir()]
    if not paths:
        raise UserError(f'no file matches {pattern!r} - it is a path or glob, relative to {os.getcwd()}')
    root = Path(os.path.commonpath([path.parent for path in paths]))
    files = {path.relative_to(root).as_posix(): path for path in paths if _size(path)}
    if not files:
        raise UserError(f'{pattern!r} matches only empty files')
    return root, {name: files[name] for name in sorted(files)}


def _size(path: Path) -> int:
    try:
        there = path.stat()
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from error
    if not stat.S_ISREG(there.st_mode):  # reading it might never end
        raise UserError(f'cannot read {path}: it is no regular file')
    return there.st_size


def _said(files: Files, root: Path) -> str:
    return f'{len(files):,} files in {root}' if len(files) > 1 else str(root / next(iter(files)))


def by_name(files: Files) -> dict[str, Split]:
    """Split of each file, by its name or that of a folder; empty unless some are named train and others test. Without
    test files, validation files are test data; with them, they are not used."""
    words = {name: next(filter(None, map(_word, name.split('/'))), '') for name in files}
    held_out = next((word for word in ('test', 'validation', 'valid', 'val', 'dev') if word in words.values()), '')
    if 'train' not in words.values() or not held_out:
        return {}
    if other := next((name for name, word in words.items() if not word), ''):
        raise UserError(f'{other} is named neither train nor test, as other files are')
    return {
        name: 'test' if word == held_out else 'train' for name, word in words.items() if word in (held_out, 'train')
    }


def _word(name: str) -> str:
    match = _NAMED.match(name)
    return match[1] if match else ''


# ----------------------------------------------------------------------------------------------------------------- read
def opened(path: Path) -> Any:
    """Bytes of a file, decompressed if its name ends in `.gz`."""
    return gzip.open(path) if path.suffix == '.gz' else path.open('rb')


def _unreadable(path: Path, error: Exception) -> UserError:
    """What to say of an error in `DAMAGED`."""
    reason = getattr(error, 'strerror', None) or str(error).removeprefix('Error -3 while decompressing data: ')
    return UserError(f'cannot read {path}: {reason}')


def lines(path: Path, newline: str = '\n') -> io.TextIOWrapper:
    """Text of a file without its byte-order mark. Bytes that are not UTF-8 become surrogates, which `clean` refuses.
    Raises `UserError` for a file in another encoding, as far as its first bytes tell."""
    file = opened(path)
    if foreign := _FOREIGN.get(file.peek(2)[:2]):
        file.close()
        raise UserError(f'{path} is {foreign}')
    return io.TextIOWrapper(file, encoding='utf-8-sig', errors='surrogateescape', newline=newline)


def suffix(name: str) -> str:
    return os.path.splitext(name.removesuffix('.gz'))[1].lower()


def clean(value: Any) -> bytes:
    """UTF-8 of a text. Raises `ValueError` if it is not one or has no visible character."""
    if not isinstance(value, str):
        raise ValueError(f'not a text: {str(value)[:40]!r}')
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        raise ValueError('not UTF-8') from None
    if not value.strip():
        raise ValueError('an empty text')
    return encoded


def row(place: str, values: tuple[Any, Any], split: Split | None = None, key: bytes | None = None) -> Row | Malformed:
    """Row of two texts, unless one of them is malformed. Its key is the first text unless given."""
    try:
        one, other = map(clean, values)
    except ValueError as error:
        return Malformed(place, str(error))
    return Row((one, other), one if key is None else key, split)


def source(kind: Any, files: Files, root: Path, rows: Callable[[str, Path, Split | None], Rows], **options) -> Source:
    """Source of files that are read one by one, by `rows(name, path, split)`."""
    splits = by_name(files)
    files = {name: path for name, path in files.items() if name in splits or not splits}

    def read() -> Rows:
        for name, path in files.items():
            try:
                yield from rows(name, path, splits.get(name))
            except DAMAGED as error:
                raise _unreadable(path, error) from error

    rule = BY_NAME if splits else BY_HASH
    return Source(kind, files, read, rule, _said(files, root), **options)


# ------------------------------------------------------------------------------------------------------------ documents
def documents(data: str) -> Source:
    """Source of files as they are. If all are named train or test, these are the splits. Otherwise, in path order,
    every tenth file is test data; with fewer than ten files, the last tenth of each."""
    root, files = find(data, ('**/*.txt', '**/*.txt.gz'))
    splits = by_name(files) if all(any(map(_word, name.split('/'))) for name in files) else {}
    if not splits:
        return documents_in(files, _said(files, root))
    files = {name: path for name, path in files.items() if name in splits}
    return Source(
        'documents',
        files,
        lambda: _document_rows(files, lambda name, size, index: [(splits[name], size)]),
        BY_NAME,
        _said(files, root),
        settings='by name',
    )


def documents_in(files: Files, provenance: str, **options: str) -> Source:
    """Source of documents by path."""
    few = len(files) < FOLD
    rule = f'the last of {FOLD} parts of each file is test data' if few else f'every {FOLD}th file is test data'
    parts = _tenths if few else _tenth
    return Source('documents', files, lambda: _document_rows(files, parts), rule, provenance, **options)


def _document_rows(files: Files, parts: Callable[[str, int, int], list[tuple[Split, int]]]) -> Rows:
    """Rows of documents; `parts(name, size, index)` are the splits of one, with their numbers of bytes."""
    for index, (name, path) in enumerate(files.items()):
        try:
            with opened(path) as file:
                size = sum(map(len, iter(lambda: file.read(BLOCK), b''))) if path.suffix == '.gz' else _size(path)
                file.seek(0)
                for split, length in parts(name, size, index):
                    for first in range(0, max(length, 1), BLOCK):
                        piece = file.read(min(BLOCK, length - first))
                        yield Row((os.fsencode(name), piece), split=split)
        except DAMAGED as error:
            raise _unreadable(path, error) from error


def _tenth(name: str, size: int, index: int) -> list[tuple[Split, int]]:
    return [('test' if index % FOLD == FOLD - 1 else 'train', size)]


def _tenths(name: str, size: int, index: int) -> list[tuple[Split, int]]:
    test = -(-size // FOLD)
    return [('train', size - test), ('test', test)]


# ------------------------------------------------------------------------------------------------------------- labelled
def labelled(data: str, text: str, label: str) -> Source:
    """Source of labelled texts: tables with columns of these names, or one folder per label with a file per text."""
    root, files = find(data)

    def rows(name: str, path: Path, split: Split | None) -> Rows:
        table = TABLES.get(suffix(name))
        if table is None:
            yield _file(name, path, split)
            return
        for line, values in table(path, name, text, label):
            place = f'{name}:{line}'
            yield Malformed(place, values) if isinstance(values, str) else row(place, values, split)

    return source('labelled', files, root, rows, settings=f'{text} {label}')


def _file(name: str, path: Path, split: Split | None) -> Row | Malformed:
    """One text, labelled by the outermost folder, or the next if that is named after a split."""
    folders = name.split('/')[:-1]
    if split and folders and _word(folders[0]):
        folders = folders[1:]
    if not folders:
        return Malformed(f'{name}:1', 'a file in no folder, which would be its label')
    with opened(path) as file:
        return row(f'{name}:1', (file.read().decode('utf-8-sig', 'surrogateescape'), folders[0]), split)


def _csv(path: Path, name: str, *names: str) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(LONGEST)
    with lines(path, newline='') as file:
        yield from _columns(_quoted(file), name, names)


def _tsv(path: Path, name: str, *names: str) -> Iterator[tuple[int, Any]]:
    with lines(path) as file:
        yield from _columns(_tabbed(file), name, names)


def _quoted(file: io.TextIOWrapper) -> Iterator[tuple[int, list[str] | str]]:
    """Rows of a `.csv` with their first lines; a reason instead of a row that csv does not read."""
    reader = csv.reader(file)
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, str(error)
            continue
        if values:
            yield line, values


def _tabbed(file: io.TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
    for line, text in enumerate(file, 1):
        if text := text.rstrip('\r\n'):
            yield line, text.split('\t')


def _columns(
    rows: Iterator[tuple[int, list[str] | str]], name: str, names: tuple[str, ...]
) -> Iterator[tuple[int, Any]]:
    """Values of the columns `names` in rows after the header, or the reason why a row has none."""
    _, header = next(rows, (1, []))
    if missing := [each for each in names if each not in header]:
        there = ', '.join(header)[:200]
        raise UserError(f'{name} has no column {missing[0]!r}; it has {there} - name two of them by text= and label=')
    if repeated := [each for each in names if header.count(each) > 1]:
        raise UserError(f'{name} has several columns {repeated[0]!r} - rename all but one')
    for line, values in rows:
        if isinstance(values, str):
            yield line, values
        elif len(values) != len(header):
            yield line, f'{len(values)} columns, not {len(header)}'
        else:
            yield line, tuple(values[header.index(each)] for each in names)


def _jsonl(path: Path, name: str, *names: str) -> Iterator[tuple[int, Any]]:
    with lines(path) as file:
        for line, text in enumerate(file, 1):
            if text.strip():
                yield line, _object(text, names)


def _object(text: str, names: tuple[str, ...]) -> Any:
    try:
        values = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return 'not JSON'
    if not isinstance(values, dict):
        return 'not a JSON object'
    if missing := [each for each in names if each not in values]:
        return f'no {missing[0]!r}'
    text, label = (values[each] for each in names)
    return text, str(label) if type(label) in (int, float) and abs(label) < math.inf else label  # no bool


def _refused(constant: str) -> None:
    raise ValueError(f'JSON has no {constant}')  # nor Infinity; Python reads both


TABLES = {'.csv': _csv, '.tsv': _tsv, '.jsonl': _jsonl}


# ---------------------------------------------------------------------------------------------------------------- pairs
def pairs(data: str) -> Source:
    """Source of sentence pairs. Two patterns with a comma between them are parallel files, in the order of their
    names."""
    if ',' in data and not _matches(data):
        return _parallel(*data.split(',', 1))
    root, files = find(data, tuple(f'**/*{kind}{gz}' for kind in ('.tsv', '.po', '.mo') for gz in ('', '.gz')))

    def rows(name: str, path: Path, split: Split | None) -> Rows:
        if suffix(name) in catalogue_files.SUFFIXES:
            yield from _messages(name, path, split)
        elif suffix(name) == '.tsv':
            with lines(path) as file:
                for line, values in _tabbed(file):
                    yield _pair(f'{name}:{line}', values, split)
        else:
            raise UserError(f'{name} holds no pairs - they are in .tsv, .po or .mo files, or in two files: a.en,b.de')

    return source('pairs', files, root, rows)


def _pair(place: str, values: list[str], split: Split | None) -> Row | Malformed:
    if len(values) != 2:
        return Malformed(place, f'{len(values)} columns, not 2')
    return row(place, (values[0], values[1]), split)


def _messages(name: str, path: Path, split: Split | None) -> Rows:
    with opened(path) as file:
        messages = catalogue_files.read(file.read(), compiled=suffix(name) == '.mo')
    for message in messages:
        if isinstance(message, catalogue_files.Unreadable):
            yield Malformed(f'{name}:{message.line}', message.reason)
        else:
            yield row(f'{name}:{message.line}', (message.source, message.target), split)


def _parallel(left: str, right: str) -> Source:
    """Source of parallel files; a line that has no counterpart is malformed."""
    (root, sources), (other_root, targets) = find(left), find(right)
    if len(sources) != len(targets):
        raise UserError(f'{left!r} matches {len(sources)} files and {right!r} {len(targets)} - they must be parallel')
    counterpart = dict(zip(sources, targets.items(), strict=True))

    def rows(name: str, path: Path, split: Split | None) -> Rows:
        target_name, target_path = counterpart[name]
        with lines(path) as these, lines(target_path) as those:
            for line, values in enumerate(itertools.zip_longest(these, those), 1):
                if None in values:
                    longer, shorter = (target_name, name) if values[0] is None else (name, target_name)
                    yield Malformed(f'{longer}:{line}', f'no such line in {shorter}')
                else:
                    one, other = (value.rstrip('\r\n') for value in values)
                    yield row(f'{name}:{line}', (one, other), split)

    pairs = source('pairs', sources, root, rows)
    both = {**pairs.files, **{f'> {counterpart[name][0]}': counterpart[name][1] for name in pairs.files}}
    return dataclasses.replace(pairs, files=both, provenance=f'{pairs.provenance}, {_said(targets, other_root)}')
