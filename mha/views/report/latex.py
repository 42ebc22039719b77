r"""Tables in LaTeX, for \input in a document that uses booktabs."""

from collections.abc import Sequence

SPECIAL = {
    '\\': r'\textbackslash{}',
    **{character: f'\\{character}' for character in '&%$#_{}'},
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    '<': r'\textless{}',
    '>': r'\textgreater{}',
    '|': r'\textbar{}',
    '"': r'\textquotedbl{}',
    '±': r'$\pm$',
    '†': r'$\dagger$',
    '‡': r'$\ddagger$',
    '§': r'\S{}',
    '…': r'\dots{}',
}
"""Characters that LaTeX reads as commands, or that its fonts lack."""


def escape(text: str) -> str:
    """Text that LaTeX shows as it is. Other characters beyond ASCII stay: XeLaTeX and current pdfLaTeX read UTF-8."""
    return ''.join(SPECIAL.get(character, character) for character in text)


def table(headers: Sequence[str], lines: Sequence[Sequence[str]], left: int, notes: Sequence[str] = ()) -> str:
    """Tabular of cells, the first `left` columns aligned to the left, with notes as comments above it."""
    comments = [f'% {line}' for note in notes for line in note.splitlines()]
    rows = [' & '.join(map(escape, line)) + r' \\' for line in lines]
    rows = ['{}' * row.startswith(('[', '*')) + row for row in rows]  # or the line break before would take it
    columns = 'l' * left + 'r' * (len(headers) - left)
    head = ' & '.join(map(escape, headers)) + r' \\'
    begin = rf'\begin{{tabular}}{{{columns}}}'
    return '\n'.join([*comments, begin, r'\toprule', head, r'\midrule', *rows, r'\bottomrule', r'\end{tabular}', ''])
