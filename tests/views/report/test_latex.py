"""Tables in LaTeX."""

import shutil
import subprocess

import pytest

from mha.views.report import latex

NAMES = [
    '<script>',
    r'a\_b',
    '50 %',
    'randomize(max_position=2_048)|rope',
    '$x^2$ ~ {y} & #1',
    '0.9 ± 0.1 † ‡ "q"',
    '[1, 2]',
    '*',
]


def test_every_special_character_is_escaped():
    text = latex.table(['name', 'score'], [[name, '1'] for name in NAMES], left=1, notes=['made by\ncompare.py'])
    assert r'a\textbackslash{}\_b & 1 \\' in text
    assert r'50 \% & 1 \\' in text
    assert r'\$x\textasciicircum{}2\$ \textasciitilde{} \{y\} \& \#1' in text
    assert '\n{}[1, 2] & 1' in text  # a line break would take it for its length
    assert '\n{}* & 1' in text
    assert text.startswith('% made by\n% compare.py\n\\begin{tabular}{lr}\n\\toprule')


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which('pdflatex'), reason='needs pdflatex')
def test_a_document_with_the_table_compiles(tmp_path):
    (tmp_path / 'table.tex').write_text(latex.table(['name', 'score'], [[name, '1'] for name in NAMES], left=1))
    (tmp_path / 'main.tex').write_text(
        '\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs}\\begin{document}\\input{table}\\end{document}'
    )
    done = subprocess.run(['pdflatex', '-halt-on-error', 'main.tex'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / 'main.pdf').exists()
