"""Small files in formats that several packages read: text, JSON, lines of JSON, and csv.

What is read may come from strangers or be damaged. Only regular files are opened, no devices and pipes, which may never
end; and every mistake is a `UserError` that names the file. What is written replaces a file at once: a crash leaves
either the old file or the new one.
"""

import contextlib
import csv
import errno
import io
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mha.spec import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""Errors of a disk that takes no more."""
LARGEST = 2**28
"""Largest size in bytes of a file that is read."""
FORMULA = re.compile(r"'*\s*[=+\-@]")
"""Beginning of texts that spreadsheets compute. In csv they begin with a quote more."""


def read_text(path: Path, errors: str = 'strict') -> str:
    """Text of a file in UTF-8, with or without a byte-order mark. `errors` is that of `open`."""
    try:
        there = path.stat()
        if not stat.S_ISREG(there.st_mode):
            raise OSError('it is no regular file')
        if there.st_size > LARGEST:
            raise OSError(f'it has {there.st_size:,} bytes, more than {LARGEST:,}')
        with path.open(encoding='utf-8-sig', errors=errors, newline='') as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def check_regular(folder: Path) -> None:
    """Raises `UserError` if there is anything but directories and regular files in a folder, for packages that would
    open it."""
    for path in folder.rglob('*'):
        if not path.is_dir() and not path.is_file():
            raise unreadable(path, 'it is no regular file')


def unreadable(path: Path, error: Any) -> UserError:
    return UserError(f'cannot read {path}: {getattr(error, "strerror", None) or error}')


def read_json(path: Path) -> dict[str, Any]:
    """Object in a JSON file."""
    try:
        content = json.loads(read_text(path), object_pairs_hook=_once)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise unreadable(path, error) from error
    if not isinstance(content, dict):
        raise unreadable(path, 'it must hold one JSON object')
    return content


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Object of a JSON file, whose keys must be different: otherwise readers would disagree on what it says."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError('an object has a key twice')
    return found


def json_lines(text: str) -> Iterator[dict[str, Any]]:
    """Objects in lines of JSON. What is no object is skipped, such as the line that a crash has cut."""
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


def read_csv(path: Path) -> list[dict[str, str]]:
    """Records of a csv file, as `csv_text` writes them."""
    text = read_text(path)
    if text and not text.endswith(('\n', '\r')):
        raise unreadable(path, 'it is cut off, its last line does not end')
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline='')) if row] or [[]]
    except csv.Error as error:
        raise unreadable(path, error) from error
    if len({*header}) < len(header):
        raise unreadable(path, 'a column is there twice')
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise unreadable(path, f'record {number} has {len(row)} fields, not {len(header)}')
    return [dict(zip(map(_plain, header), map(_plain, row), strict=True)) for row in rows]


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Records as csv; the keys of the first one are the columns."""
    file = io.StringIO()
    breaks = any('\r' in str(value) for record in records for value in record.values())  # which only QUOTE_ALL quotes
    quoting = csv.QUOTE_ALL if breaks else csv.QUOTE_MINIMAL
    writer = csv.DictWriter(file, list(records[0]), lineterminator='\n', quoting=quoting)
    for record in ({name: name for name in records[0]}, *records):
        writer.writerow({name: _guarded(value) for name, value in record.items()})
    return file.getvalue()


def _guarded(value: Any) -> Any:
    """Value that no spreadsheet computes: a quote goes before texts that begin like formulas, unless they are
    numbers or a dash."""
    if not isinstance(value, str) or not FORMULA.match(value) or value == '-':
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _plain(text: str) -> str:
    """Text that was guarded."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def write(path: Path, content: str | bytes) -> None:
    """Replaces a file, or makes it. A crash leaves either the old file or the new one, and so does a full disk."""
    temporary = path.with_name(f'{path.name}.tmp')
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names no file
