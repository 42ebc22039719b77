"""Message catalogues of gettext, as text (`.po`) or compiled (`.mo`): pairs of a message and its translation.

Fuzzy, obsolete and untranslated messages are left out, and so is the header. The context of a message is not part of
it. A message with plural forms gives two pairs: the singular with the first form, and the plural with the last; in a
language with one form for all numbers, only the second.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

SUFFIXES = ('.po', '.mo')
_ESCAPES = {'n': '\n', 't': '\t', 'r': '\r'}
_STRING = re.compile(r'".*"$')
_FIELD = re.compile(r'(msgctxt|msgid_plural|msgid|msgstr(?:\[\d{1,2}\])?)\s*(".*")$')


class Message(NamedTuple):
    """Message and its translation, with the line of a `.po` file or the number in a `.mo` file."""

    source: str
    target: str
    line: int


class Unreadable(NamedTuple):
    """Line or entry that is no part of a catalogue."""

    line: int
    reason: str


def read(content: bytes, compiled: bool) -> Iterator[Message | Unreadable]:
    """Messages of a catalogue in the order of the file. Characters that are not UTF-8 become surrogates."""
    return _compiled(content) if compiled else _written(content.decode('utf-8-sig', 'surrogateescape'))


def _pairs(singular: str, plural: str, forms: list[str], line: int) -> Iterator[Message]:
    """Messages of one entry."""
    several = bool(plural)
    for source, target in [(singular, forms[0])] * (len(forms) > 1 or not several) + [(plural, forms[-1])] * several:
        if singular and target:  # the header is the translation of an empty message
            yield Message(source, target, line)


def _compiled(content: bytes) -> Iterator[Message | Unreadable]:
    """Messages of a `.mo` file: two tables of sizes and offsets, in either byte order (gettext manual)."""
    order = {b'\xde\x12\x04\x95': '<', b'\x95\x04\x12\xde': '>'}.get(content[:4])
    try:
        if order is None:
            raise ValueError
        count, sources, targets = struct.unpack_from(f'{order}3I', content, 8)
        for number in range(count):
            source, target = (_entry(content, order, table + 8 * number) for table in (sources, targets))
            singular, _, plural = source.rpartition('\x04')[2].partition('\0')
            yield from _pairs(singular, plural, target.split('\0'), number + 1)
    except (struct.error, ValueError):
        yield Unreadable(1, 'no catalogue that msgfmt has compiled')


def _entry(content: bytes, order: str, place: int) -> str:
    size, offset = struct.unpack_from(f'{order}2I', content, place)
    if offset + size > len(content):
        raise ValueError
    return content[offset : offset + size].decode('utf-8', 'surrogateescape')


def _written(text: str) -> Iterator[Message | Unreadable]:
    """Messages of a `.po` file. An entry ends at a comment or another message after its translation, or at a field that
    it has already."""
    entry: dict[str, str] = {}
    field, first, fuzzy = '', 0, False
    for number, line in enumerate(map(str.strip, text.split('\n')), 1):
        match = _FIELD.match(line)
        name = match[1] if match else ''
        begins = line.startswith('#') or name.startswith(('msgid', 'msgctxt'))
        if name in entry or (begins and field.startswith('msgstr')):
            yield from () if fuzzy else _finished(entry, first)
            entry, field, fuzzy = {}, '', False
        if line.startswith('#'):
            fuzzy = (fuzzy or (line.startswith('#,') and 'fuzzy' in line)) and not line.startswith('#~')  # obsolete
        elif match:
            first = first if entry else number
            field, entry[name] = name, _unescaped(match[2])
        elif _STRING.match(line) and field:
            entry[field] += _unescaped(line)
        elif line:
            yield Unreadable(number, 'neither a field, a string nor a comment of a catalogue')
    yield from () if fuzzy or not entry else _finished(entry, first)


def _finished(entry: dict[str, str], line: int) -> Iterator[Message | Unreadable]:
    forms = [text for name, text in sorted(entry.items(), key=_form) if name.startswith('msgstr')]
    if 'msgid' in entry and forms:
        yield from _pairs(entry['msgid'], entry.get('msgid_plural', ''), forms, line)
    else:
        yield Unreadable(line, 'a message without its translation, or the other way round')


def _form(item: tuple[str, str]) -> int:
    return int(re.sub(r'\D', '', item[0]) or 0)


def _unescaped(quoted: str) -> str:
    return re.sub(r'\\(.)', lambda match: _ESCAPES.get(match[1], match[1]), quoted[1:-1])
