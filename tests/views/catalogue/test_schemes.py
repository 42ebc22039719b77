"""What is said of schemes: facts against schemes made for the purpose, docs/schemes.md against the code."""

import functools
import re
from pathlib import Path

import pytest
from PIL import Image

from mha import positions
from mha.positions import Dims
from mha.spec import UserError
from mha.views.catalogue import heatmap, prose
from mha.views.catalogue import schemes as catalogue

ROOT = Path(__file__).parents[3]
OUTDATED = 'docs/schemes is not what the code says: run make docs'
TWISTED = '''"""Twist (A. Uthor, 2001, arXiv:0101.00001):
a | b * c <- d.

    q_i <- M q_i

M is learned.
"""

from typing import Literal
import jax
from flax import nnx
from mha.positions.base import Position


class Twist(Position):
    """Twists `size` *channels* [all of them].

    Second paragraph."""

    directed = True

    def __init__(self, dims, size: int, kind: Literal['a', 'b'] | None = None, rows: tuple[int, ...] = (), *, rngs):
        if kind == 'b' and dims.causal:
            raise ValueError("kind='b' is bidirectional")
        if kind == 'a' and not dims.causal:
            raise ValueError("kind='a' is causal")
        self.size = size
        self.m = nnx.Param(jax.random.normal(rngs.params(), (dims.head_dim, size)))
        self.c = nnx.Param(jax.numpy.ones(()))

    example = 'size=3'

    def qk(self, q, k, coords):
        return q * self.c[...], k

    def extent(self, length):
        if length > 1000 * self.size:
            raise ValueError('too long')
        return length
'''


@pytest.fixture
def twist(tmp_path, monkeypatch):
    (tmp_path / 'twist.py').write_text(TWISTED)
    monkeypatch.setattr(positions, '__path__', [*positions.__path__, str(tmp_path)])


# --- facts -----------------------------------------------------------------------------------------------------------


def test_facts(twist):
    facts = {'hooks': 'qk', 'directions': 'both', 'directed': 'yes', 'cores': 'any', 'length': '3,000 tokens'}
    assert catalogue.look('twist(3)').facts() == {**facts, 'parameters': '25: c [], m [8, 3]'}
    assert catalogue.look('twist(3)', Dims(4, 2, 2, 8)).count == 7


@pytest.mark.parametrize(
    ('text', 'asked', 'directions', 'causal'),
    [
        ('twist(3)', False, 'both', False),
        ('twist(3)', True, 'both', True),
        ("twist(3, 'a')", False, 'causal', True),
        ("twist(3, 'b')", True, 'bidirectional', False),
    ],
)
def test_directions(twist, text, asked, directions, causal):
    entry = catalogue.look(text, Dims(64, 8, 8, 48, asked))
    assert (entry.directions, entry.dims.causal) == (directions, causal)
    assert entry.directed == ('-' if directions == 'causal' else 'yes')


def test_facts_of_compositions():
    entry = catalogue.look('randomize(max_position=512)|learned|cope')
    facts = entry.facts()
    assert (facts['hooks'], facts['directions'], facts['cores']) == ('remap, embed, rows', 'causal', 'dense')
    assert facts['length'] == '512 tokens; 48 stand on up to 512 coordinates'
    assert entry.parameters['parts.1.table'] == (512, 64)
    assert catalogue.look('none').facts() == {
        'hooks': '-',
        'parameters': '0',
        'directions': 'both',
        'directed': 'no',
        'cores': 'any',
        'length': 'any',
    }


@pytest.mark.parametrize(('text', 'words'), [('ropee', "'rope'"), ("twist(3, 'c')", "'a' or 'b'"), ('twist', 'size')])
def test_mistakes(twist, text, words):
    with pytest.raises(UserError, match=words):
        catalogue.look(text)


def test_arguments_and_docstrings(twist):
    kind = catalogue.kind_of(catalogue.look('twist(3)').calls[0])
    assert prose.arguments(kind, catalogue.GIVEN) == [
        ('size', 'int', 'required'),
        ('kind', "'a' or 'b' or None", 'None'),
        ('rows', 'tuple[int, ...]', '()'),
    ]
    title, rest, use = prose.paragraphs(kind)
    assert title == 'Twist (A. Uthor, 2001, arXiv:0101.00001): a | b * c <- d.'
    assert rest == '    q_i <- M q_i\n\nM is learned.'
    assert use == 'Twists `size` *channels* [all of them].\n\nSecond paragraph.'


def test_table(twist, monkeypatch):
    monkeypatch.setattr(catalogue, '_entries', functools.cache(catalogue._entries))  # alike at every width
    table = catalogue.table()
    lines = table.splitlines()
    assert max(map(len, lines)) <= catalogue.WIDTH
    for name in positions.names():
        assert sum(line.split()[:1] == [name] for line in lines) == 1
    (line,) = (line for line in lines if line.startswith('twist'))
    assert re.fullmatch(r'twist +qk +25 +both +yes +any +Twist \(A. Uthor, 2001\): a \| b \* c <- d.', line)
    assert '…' in table
    for width in (60, 80, 100, 200):
        assert max(map(len, catalogue.table(width=width).splitlines())) <= width
    assert catalogue.table(width=60).splitlines()[0].split() == ['scheme', 'summary']


def test_description(twist):
    text = catalogue.describe("randomize(512)|twist(7, kind='b')")
    assert re.search(r"^    kind +'a' or 'b' or None +None +'b'$", text, re.MULTILINE)
    assert re.search(r'^    size +int +required +7$', text, re.MULTILINE)
    assert re.search(r'^    max_position +int +2048 +512$', text, re.MULTILINE)
    assert '\n    parameters  57: c [], m [8, 7]\n' in text
    assert '\n    directions  bidirectional\n' in text
    assert '\n        q_i <- M q_i\n' in text
    assert max(map(len, text.splitlines())) <= catalogue.WIDTH


def test_markdown(twist, monkeypatch):
    monkeypatch.setattr(positions, 'names', lambda: ('none', 'twist'))
    page = catalogue.page()
    link = r'[arXiv:0101.00001](https://arxiv.org/abs/0101.00001)'
    assert f'**Twist (A. Uthor, 2001, {link}): a | b \\* c \\<- d.**' in page
    row = f'| [twist](#twist) | qk | 25 | both | yes | any | Twist (A. Uthor, 2001, {link}): a \\| b \\* c \\<- d. |'
    assert row in page
    assert 'Twists `size` \\*channels\\* \\[all of them\\].\n\nSecond paragraph.' in page
    assert '\n```text\n    q_i <- M q_i\n\nM is learned.\n```\n' in page
    assert 'Built and drawn as `twist(size=3)`' in page


# --- docs/schemes.md -------------------------------------------------------------------------------------------------


def test_page_is_current():
    assert (ROOT / 'docs/schemes.md').read_text(encoding='utf-8') == catalogue.page(), OUTDATED


def test_pictures_are_complete():
    there = {path.name for path in (ROOT / 'docs/schemes').iterdir()}
    assert there == {f'{name}.png' for name in positions.names()}, OUTDATED


@pytest.mark.slow
@pytest.mark.parametrize('name', positions.names())
def test_picture_is_current(name):
    path = ROOT / 'docs/schemes' / f'{name}.png'
    assert path.exists(), OUTDATED
    assert heatmap.distance(path.read_bytes(), catalogue.picture(name)) < heatmap.SAME, OUTDATED


def test_writing_replaces_what_differs(tmp_path, monkeypatch):
    monkeypatch.setattr(positions, 'names', lambda: ('none', 'pi'))
    (tmp_path / 'schemes').mkdir()
    (tmp_path / 'schemes' / 'gone.png').write_bytes(b'')
    catalogue.write(tmp_path)
    pictures = [tmp_path / 'schemes' / 'none.png', tmp_path / 'schemes' / 'pi.png']
    assert sorted((tmp_path / 'schemes').iterdir()) == pictures
    same, other = pictures
    Image.open(same).save(same, compress_level=0)
    kept, expected = same.read_bytes(), other.read_bytes()
    other.write_bytes(kept)
    catalogue.write(tmp_path)
    assert (same.read_bytes(), other.read_bytes()) == (kept, expected)
    assert '### pi' in (tmp_path / 'schemes.md').read_text()


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(module):
    return functools.partial(module, 'mha.positions')


@pytest.fixture
def forked(script, tmp_path):
    """The command in a process that need not import."""
    return functools.partial(script, 'mha.positions', cwd=tmp_path)


def test_command_describes_and_draws_only_where_asked(forked, tmp_path):
    spec = 'ssmax|rope(theta=1e6)'
    done = forked(spec, '--dim=32', '--heads=2', '--length=20', '--causal')
    assert 'width 32, 2 heads of 16, 20 tokens, causal' in done.stdout
    assert not list(tmp_path.glob('**/*.png'))
    path = tmp_path / 'new' / 'a.png'
    drawn = forked(spec, '--dim=32', '--heads=2', '--length=20', '--causal', f'--picture={path}')
    assert drawn.stdout == f'{done.stdout}\npicture: {path}\n'
    assert Image.open(path).size[0] == heatmap.LEFT + heatmap.SIDE + heatmap.RIGHT


def test_list_is_as_wide_as_the_terminal(command, monkeypatch):
    monkeypatch.setenv('COLUMNS', '150')
    assert 120 < max(map(len, command().stdout.splitlines())) <= 150


@pytest.mark.slow
@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['ropee'], "did you mean 'rope'"),
        (['rope', '--picture=a.svg'], 'a.png'),
        (['--picture=a.png'], 'is for one scheme'),
        (['rope', '--picture=/dev/null/a.png'], 'cannot write /dev/null/a.png'),
        (['rope', 'alibi'], 'one spec at a time'),
        (['--heads=3'], '3 heads do not divide the width 64'),
        (['--docs', 'rope'], 'takes nothing else'),
    ],
)
def test_mistakes_at_the_command_line(forked, arguments, words, tmp_path):
    done = forked(*arguments, code=2)
    assert done.stderr.count('\n') == 1, done.stderr
    assert words in done.stderr
    assert not list(tmp_path.glob('*.*'))
