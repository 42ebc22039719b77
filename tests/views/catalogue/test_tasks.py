"""What is said of tasks: facts against tasks made for the purpose, docs/tasks.md against the code."""

import functools
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from mha import tasks
from mha.spec import UserError
from mha.views.catalogue import prose
from mha.views.catalogue import tasks as task_catalogue

ROOT = Path(__file__).parents[3]
OUTDATED = 'docs/tasks.md is not what the code says: run make docs'
ECHO = '''"""Echo (regular; A. Uthor, 2001, arXiv:0101.00001): says the
first symbol again. Or another one.

a|b`\\n -> a
"""

from typing import Literal

import jax.numpy as jnp
from mha.tasks.base import Task


class Echo(Task):
    """Letters in, `size` *symbols* out."""

    level = 'regular'
    alphabet = 'a|`\\n'
    example_arguments = 'size=2'

    def __init__(self, size: int, kind: Literal['x', 'y'] = 'x', *, causal=False):
        super().__init__(causal=causal)
        if kind == 'y' and causal:
            raise ValueError("kind='y' is bidirectional")
        self.inputs, self.num_classes, self.size = 4, 3, size

    def output_length(self, length):
        return self.size

    def sample(self, key, length, max_length):
        return jnp.arange(max_length) % 4, jnp.zeros(self.size, int)
'''
CHANT = '''"""Chant: no level, no paper."""

import jax.numpy as jnp
from mha.tasks.base import EMPTY, Sequence


class Chant(Sequence):
    alphabet = ('la', '.')

    def prompt_length(self, length):
        return length

    def output_length(self, length):
        return 1

    def sample(self, key, length, max_length):
        return jnp.where(jnp.arange(max_length) < length, 0, EMPTY), jnp.ones(1, int)
'''
FILES = '''"""Files: as many classes as there are."""

import jax.numpy as jnp
from mha.tasks.base import Task


class Files(Task):
    level = 'language'
    inputs = 2

    def __init__(self, *, causal: bool = False):
        super().__init__(causal=causal)
        self.sha256, self.num_classes = 'abc', 7

    def output_length(self, length):
        return 1

    def sample(self, key, length, max_length):
        return jnp.zeros(max_length, int), jnp.zeros(1, int)
'''
MADE = {'echo': ECHO, 'chant': CHANT, 'files': FILES}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Three tasks and no others."""
    for name, text in MADE.items():
        (tmp_path / f'{name}.py').write_text(text)
    monkeypatch.setattr(tasks, '__path__', [*tasks.__path__, str(tmp_path)])
    monkeypatch.setattr(tasks, 'names', lambda: tuple(MADE))
    yield
    for name in MADE:
        sys.modules.pop(f'mha.tasks.{name}', None)


@pytest.fixture(scope='module')
def entries(tmp_path_factory):
    """All tasks there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MHA_CACHE', str(tmp_path_factory.mktemp('cache')))
        return task_catalogue.entries()[0]


def test_tasks_without_their_data_are_told(monkeypatch, tmp_path):
    def distribution(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, 'distribution', distribution)
    found, missing = task_catalogue.entries()
    assert {'lm', 'parity'} < {name for name, _ in found}
    assert [line.partition(':')[0] for line in missing] == ['classification', 'translation']
    assert 'pip install Django==' in missing[0]
    with pytest.raises(UserError, match=r'tasks\.md would lack a task - classification: '):
        task_catalogue.write(tmp_path)
    assert not [*tmp_path.iterdir()]


# --- facts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('text', 'asked', 'directions', 'causal'),
    [
        ('echo(2)', False, 'both', False),
        ('echo(2)', True, 'both', True),
        ("echo(2, 'y')", True, 'bidirectional', False),
        ('chant', False, 'causal', True),
    ],
)
def test_directions(made, text, asked, directions, causal):
    entry = task_catalogue.look(text, asked)
    assert (entry.directions, entry.task.causal) == (directions, causal)


@pytest.mark.parametrize(('text', 'words'), [('ech', "'echo'"), ("echo(2, 'z')", "'x' or 'y'"), ('echo', 'size')])
def test_mistakes(made, text, words):
    with pytest.raises(UserError, match=words):
        task_catalogue.look(text)


def test_table(made):
    lines = task_catalogue.table(*task_catalogue.entries()).splitlines()
    assert [line for line in lines if not line or line[0].isupper()] == ['', 'Regular', '', 'Language', '', 'Other']
    (line,) = (line for line in lines if line.startswith('echo'))
    assert re.fullmatch(r'echo +both +33\.3 % +accuracy +a\|`·a\| -> aa +Echo: says the first symbol again\.', line)
    (line,) = (line for line in lines if line.startswith('chant'))
    assert re.fullmatch(r'chant +causal +50 % +exact_match +la la la la la la -> \. +Chant: no level, no paper\.', line)
    narrow = task_catalogue.table(*task_catalogue.entries(), width=10).splitlines()
    assert 'echo   Echo: says the first symbol a…' in narrow


def test_description(made):
    text = task_catalogue.describe(task_catalogue.look("echo(2, kind='y')"), 40, 2, 3)
    assert text.startswith("echo(2, kind='y')\n\n    Echo (regular; A. Uthor, 2001, arXiv:0101.00001): says the first")
    assert re.search(r'^    size +int +required +2$', text, re.MULTILINE)
    assert re.search(r"^    kind +'x' or 'y' +'x' +'y'$", text, re.MULTILINE)
    assert '\n    vocabulary  5: a | ` · _\n' in text
    assert '\n    classes     3: a | `\n' in text
    assert '\n    tokens      42 at length 40\n    answers     2 symbols\n' in text
    assert text.endswith('\n\nsamples of length 40, seed 3\n' + '\n'.join(['a|`·' * 10 + '  ->  aa'] * 2))


def test_long_samples_have_two_lines(made):
    text = task_catalogue.describe(task_catalogue.look('chant'), 50, 1, 0)
    assert '\n    vocabulary  2: la .\n' in text
    assert text.endswith('\n' + ' '.join(['la'] * 50) + '\n    -> .')


def test_answers_of_several_sizes():
    name = next(name for name in tasks.names() if name.startswith('binary_'))
    text = task_catalogue.describe(task_catalogue.look(name), 9, 30, 0)
    sizes = {len(line.split()[-1]) for line in text.split('seed 0\n')[1].splitlines()}
    assert f'\n    answers     {min(sizes)} to {max(sizes)} symbols in these samples\n' in text


def test_samples_follow_the_seed():
    entry = task_catalogue.look(next(name for name in tasks.names() if name.endswith('_string')))
    one, same, other = (task_catalogue.describe(entry, 20, 3, seed).splitlines()[-3:] for seed in (0, 0, 2**32 - 1))
    assert one == same
    assert len({*one, *other}) == 6


def test_markdown(made):
    page = task_catalogue.page(task_catalogue.entries()[0])
    link = '[arXiv:0101.00001](https://arxiv.org/abs/0101.00001)'
    assert f'**Echo (regular; A. Uthor, 2001, {link}): says the first symbol again. Or another one.**' in page
    row = '| [echo](#echo) | both | 33.3 % | accuracy | `` a\\|`·a\\| `` → `aa` | Echo: says the first symbol again. |'
    assert row in page
    assert 'Letters in, `size` \\*symbols\\* out.' in page
    assert "| `kind` | `'x' or 'y'` | `'x'` |" in page
    assert 'Described as `echo(size=2)`:' in page
    assert '\n| 6 | `` a\\|`·a\\| `` | `aa` |\n| 9 | ' in page
    assert '| regular | both | 3 | 33.3 % | accuracy | 5: `` a \\| ` · _ `` |' in page


def test_page_says_nothing_that_depends_on_files(made):
    page = task_catalogue.page(task_catalogue.entries()[0])
    assert '| [files](#files) | both | - | accuracy |  | Files: as many classes as there are. |' in page
    assert '| language | both | - | - | accuracy | 3: `0 1 _` |' in page.split('### files')[1]
    assert 'length | input' not in page.split('### files')[1].split('###')[0]


# --- the tasks there are ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_page_is_current(entries):
    assert (ROOT / 'docs/tasks.md').read_text(encoding='utf-8') == task_catalogue.page(entries), OUTDATED


@pytest.mark.parametrize('name', tasks.names())
def test_every_task_says_what_it_is(entries, name):
    entry = dict(entries)[name]
    assert entry.task.level in task_catalogue.LEVELS
    assert task_catalogue.first_sentence(entry.kind)
    assert prose.paragraphs(entry.kind)[2], 'no docstring of the class'
    assert len(entry.task.alphabet) >= entry.task.inputs
    assert len(entry.task.answers or entry.task.alphabet) >= entry.task.num_classes
    assert 0 < entry.task.chance < 1
    known = {argument for argument, *_ in prose.arguments(entry.kind, task_catalogue.GIVEN)}
    assert set(entry.call.kwargs) <= known


@pytest.mark.slow
@pytest.mark.parametrize('length', task_catalogue.LENGTHS)
def test_every_example_reads(entries, length):
    found = [entry for _, entry in entries]
    for entry, example in zip(found, task_catalogue.draw(found, length), strict=True):
        read, answer = entry.readable(example)
        assert read, entry.text
        assert answer, entry.text
        assert '_' not in answer, entry.text


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(module):
    return functools.partial(module, 'mha.tasks')


def test_command_shows_samples(command):
    done = command('bucket_sort(symbols=3)', '--length=7', '--samples=4', '--seed=1', '--causal')
    description, samples = done.stdout.split('\nsamples of length 7, seed 1\n')
    assert '\n    vocabulary  4: 0 1 2 _\n' in description
    pairs = [line.split('  ->  ') for line in samples.splitlines()]
    assert len({read for read, _ in pairs}) == 4
    for read, answer in pairs:
        assert len(read) == 7
        assert answer == ''.join(sorted(read))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['bucket_sor'], "did you mean 'bucket_sort'"),
        (['bucket_sort', '--length=0'], '--length=0'),
        (["lm('nowhere/*')"], 'no file matches'),
        (['--length=3'], '--length=3 is for samples of a task'),
        (['--docs', 'bucket_sort'], 'takes nothing else'),
    ],
)
def test_mistakes_at_the_command_line(script, tmp_path, arguments, words):
    done = script('mha.tasks', *arguments, code=2, cwd=tmp_path)
    assert done.stderr.count('\n') == 1, done.stderr
    assert words in done.stderr
    assert not done.stdout
