"""Descriptions taken from code - docstrings, arguments, directions - and their layout in terminals and on pages."""

import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from mha.spec import Call, UserError

WIDTH, ROOM = 120, 30
"""Characters: width of a line if the terminal does not say, and smallest width of a summary in a table."""
T = TypeVar('T')


# --- Content of the code ---------------------------------------------------------------------------------------------


def either(build: Callable[[bool], T], causal: bool) -> tuple[T, bool, str]:
    """Plug-in in one direction: the result of `build(causal)` or, if that raises `UserError`, of the other direction;
    whether it is causal; and the directions that work, in words. Raises the `UserError` of `build(causal)` if none
    works."""
    built: dict[bool, T] = {}
    refusal = UserError('')
    for direction in (not causal, causal):
        try:
            built[direction] = build(direction)
        except UserError as error:
            refusal = error
    if not built:
        raise refusal
    chosen = causal if causal in built else not causal
    return built[chosen], chosen, 'both' if len(built) == 2 else 'causal' if chosen else 'bidirectional'


def paragraphs(kind: type) -> tuple[str, str, str]:
    """Docstrings of a plug-in: the first paragraph of its file in one line, the rest of its file's docstring, and the
    docstring of the class."""
    first, _, rest = inspect.cleandoc(sys.modules[kind.__module__].__doc__ or '').partition('\n\n')
    return ' '.join(first.split()), rest.strip('\n'), inspect.cleandoc(kind.__doc__ or '')


def arguments(kind: type, given: Collection[str]) -> list[tuple[str, str, str]]:
    """Name, type and default of each argument of a spec. The parameters `given` are left out, because users do not set
    them."""
    return [
        (p.name, _type(p.annotation), 'required' if p.default is p.empty else repr(p.default))
        for p in list(inspect.signature(kind.__init__).parameters.values())[1:]
        if p.name not in given and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def _type(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Annotated:
        return _type(hint.__origin__)
    options = [_type(option) for option in typing.get_args(hint)]
    match typing.get_origin(hint):
        case typing.Literal:
            return ' or '.join(map(repr, typing.get_args(hint)))
        case typing.Union | types.UnionType:
            return ' or '.join(options)
        case None if isinstance(hint, type):
            return {inspect.Parameter.empty: '', type(None): 'None'}.get(hint, hint.__name__)
    return str(hint)


# --- In the terminal -------------------------------------------------------------------------------------------------


def described(call: Call, kind: type, given: Collection[str]) -> list[str]:
    """Description of a call in lines: the docstrings of `kind`, and a table of its arguments with the values in
    `call`."""
    title, rest, use = paragraphs(kind)
    accepted = arguments(kind, given)
    here = dict(zip([name for name, *_ in accepted], call.args, strict=False)) | dict(call.kwargs)
    rows = [(*row, repr(here[row[0]]) if row[0] in here else '') for row in accepted]
    lines = [*textwrap.wrap(title, WIDTH - 4), *(['', *rest.splitlines()] if rest else [])]
    for paragraph in use.split('\n\n') if use else []:
        lines += ['', *textwrap.wrap(' '.join(paragraph.split()), WIDTH - 4)]
    return [*lines, '', *aligned([('argument', 'type', 'default', 'here'), *rows])] if rows else lines


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Table in lines, one per row; the columns with indices in `right` are flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        '  '.join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def listed(facts: Mapping[str, str]) -> list[str]:
    """Facts in lines `name fact`, wrapped."""
    lines = []
    for name, fact in facts.items():
        first, *more = textwrap.wrap(fact, WIDTH - 18)
        lines += [f'{name:<12}{first}', *(f'{"":<12}{line}' for line in more)]
    return lines


def indented(lines: Sequence[str]) -> list[str]:
    """Lines, indented below a heading."""
    return [f'    {line}'.rstrip() for line in lines]


def table(
    header: Sequence[str], rows: Sequence[tuple[str, Sequence[str], str]], right: Sequence[int], width: int = WIDTH
) -> str:
    """Table of plug-ins for a terminal, one line per row, below the titles of their groups. A row has a group, cells
    and a summary, which is cut to `width`. On a narrow terminal the last columns are left out, so that summaries keep
    at least `ROOM` characters."""
    columns = [header, *(cells for _, cells, _ in rows)]
    while len(columns[0]) > 1 and width - len(aligned(columns)[0]) - 2 < ROOM:
        columns = [row[:-1] for row in columns]
    first, *lines = aligned(columns, right)
    room = max(width - len(first) - 2, ROOM)
    text, group = [f'{first}  summary'], None
    for (title, _, summary), line in zip(rows, lines, strict=True):
        if title != group:
            group = title
            text += ['', group]
        text.append(f'{line}  {clipped(summary, room)}')
    return '\n'.join(text)


def clipped(text: str, width: int) -> str:
    """`text`, cut to `width` characters with an ellipsis."""
    return text if len(text) <= width else text[: width - 1].rstrip() + '…'


# --- On a page -------------------------------------------------------------------------------------------------------


def page(
    introduction: str,
    header: Sequence[str],
    rows: Sequence[tuple[str, Sequence[str], str, Sequence[str]]],
    right: Sequence[int],
) -> str:
    """Page in Markdown: an overview with a link to a section per row. A row has a group, cells that begin with its
    name, a summary, and the paragraphs of its section."""
    rule = ['---:' if i in right else '---' for i in range(len(header) + 1)]
    overview, sections, group = [[*header, 'summary'], rule], [], None
    for title, (name, *cells), summary, text in rows:
        if title != group:
            group = title
            overview.append([f'**{group}**', *[''] * len(header)])
            sections.append(f'## {group}')
        overview.append([f'[{name}](#{name})', *cells, markdown(summary)])
        sections.append('\n\n'.join(text))
    return '\n\n'.join([introduction.strip(), grid(overview), *sections]) + '\n'


def section(name: str, kind: type, given: Collection[str]) -> list[str]:
    """Section in Markdown: the heading `name`, the docstrings of `kind`, and a table of its arguments."""
    title, rest, use = paragraphs(kind)
    text = [f'### {name}', f'**{markdown(title)}**']
    text += [f'```text\n{rest}\n```'] * bool(rest) + [markdown(use)] * bool(use)
    if rows := arguments(kind, given):
        code = [[f'`{cell}`' for cell in row] for row in rows]
        text.append(grid([['argument', 'type', 'default'], ['---'] * 3, *code]))
    return text


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Table in Markdown; the second row gives the alignment of the columns."""
    return '\n'.join('| ' + ' | '.join(cell.replace('|', '\\|') for cell in row) + ' |' for row in rows)


def markdown(text: str) -> str:
    """Plain text as Markdown: code spans are kept, papers become links, other special characters are escaped."""
    parts = re.split(r'(`[^`]*`)', text)
    parts[::2] = [re.sub(r'([\\*_<>\[\]])', r'\\\1', part) for part in parts[::2]]
    return linked(''.join(parts))


def linked(text: str) -> str:
    """Markdown in which papers become links."""
    return re.sub(r'arXiv:(\d{4}\.\d{4,5})', r'[\g<0>](https://arxiv.org/abs/\1)', text)
