"""Catalogue of tasks, made from their code: in the terminal, with samples, and as the page docs/tasks.md."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from pathlib import Path

import jax
from jaxtyping import Array, Int, PRNGKeyArray

from mha import spec, tasks
from mha.spec import Call
from mha.tasks import Batch, Task
from mha.views.catalogue import prose
from mha.views.catalogue.prose import (
    WIDTH,
    aligned,
    clipped,
    described,
    either,
    grid,
    indented,
    listed,
    paragraphs,
    section,
)

GIVEN = ('causal',)
"""Parameters of a task that no spec sets."""
LEVELS = ('regular', 'context-free', 'context-sensitive', 'algorithmic', 'retrieval', 'language')
"""Order of the groups."""
NO_LEVEL = 'other'
LENGTH, LENGTHS = 6, (6, 9, 12)
"""Length of the example in tables, and lengths of the examples on the page."""


# --- Facts -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Entry:
    """Task that can be built, and its properties."""

    text: str
    task: Task
    directions: str

    @property
    def call(self) -> Call:
        return spec.parse(self.text)[0]

    @property
    def kind(self) -> type[Task]:
        return type(self.task)

    @property
    def level(self) -> str:
        return (self.task.level or NO_LEVEL).capitalize()

    @property
    def chance(self) -> str:
        return f'{100 * self.task.chance:.3g} %'

    @property
    def everywhere(self) -> bool:
        """Whether the classes are the same on every machine; false if they depend on the files that the task reads."""
        return not self.task.sha256 or 'num_classes' not in vars(self.task)

    def readable(self, example: Batch) -> tuple[str, str]:
        """Input and answer of one example, each on one line."""
        read, answer = self.task.readable(example)
        return spec.visible(read), spec.visible(answer)


def look(text: str, causal: bool = False) -> Entry:
    """Entry of a task, built for one direction or, if that is impossible, for the other. Raises `UserError`."""
    task, _, directions = either(lambda causal: tasks.make(text, causal=causal), causal)
    return Entry(text, task, directions)


def entries() -> tuple[list[tuple[str, Entry]], list[str]]:
    """Entries of all tasks that can be built, by name, in the order of the levels, and a line about each that cannot,
    such as those whose default data is in a package that is not installed."""
    examples, missing = spec.loadable(tasks.names(), tasks.example)
    found = []
    for name, text in examples.items():
        try:
            found.append((name, look(text)))
        except spec.UserError as error:
            missing.append(f'{name}: {error}')
    return sorted(found, key=lambda item: [*LEVELS, item[1].task.level].index(item[1].task.level)), missing


def draw(entries: Sequence[Entry], length: int) -> list[Batch]:
    """One example of `length` (one of `LENGTHS`) for each task, without a batch axis; always the same examples."""
    key = jax.random.fold_in(jax.random.key(0), length)
    return _draw([entry.task for entry in entries], key, length, max(LENGTHS))


# One program for all tasks, cached on disk. It runs only a few times, so it is compiled quickly, not optimised.
@functools.partial(jax.jit, static_argnums=3, compiler_options={'xla_backend_optimization_level': 0})
def _draw(found: list[Task], key: PRNGKeyArray, length: int | Int[Array, ''], max_length: int) -> list[Batch]:
    return [task.example(key, length, max_length) for task in found]


# --- In the terminal -------------------------------------------------------------------------------------------------

HEADER, RIGHT = ['task', 'directions', 'chance', 'metric', 'example'], (2,)
EXAMPLE_WIDTH = 24


def table(entries: Sequence[tuple[str, Entry]], missing: Sequence[str] = (), width: int = WIDTH) -> str:
    """Table of the tasks in `entries()`, one line each."""
    drawn = draw([entry for _, entry in entries], LENGTH)
    rows = []
    for (name, entry), example in zip(entries, drawn, strict=True):
        shown = clipped(' -> '.join(entry.readable(example)), EXAMPLE_WIDTH)
        rows.append((entry.level, [*_cells(name, entry, entry.chance), shown], first_sentence(entry.kind)))
    return '\n'.join([prose.table(HEADER, rows, RIGHT, width), *missing])


def _cells(name: str, entry: Entry, chance: str) -> list[str]:
    return [name, entry.directions, chance, entry.task.metric]


def first_sentence(kind: type[Task]) -> str:
    """First sentence of a task's file, without its papers."""
    title = re.sub(r' \([^()]*\b\d{4}\b[^()]*\)', '', paragraphs(kind)[0])
    return re.split(r'(?<=[.?!]) +(?=[A-Z])', title)[0]


def describe(entry: Entry, length: int, count: int, seed: int) -> str:
    """Full description of one task, with `count` samples of `length`, one per line, or two lines each if they are
    long."""
    task = entry.task
    run = jax.jit(lambda task, key: task.batch(key, count, length, length))
    batch = jax.device_get(run(task, jax.random.key(seed)))
    answers = batch.metric_mask.sum(-1)
    fewest, most = int(answers.min()), int(answers.max())
    facts = {
        'level': task.level or NO_LEVEL,
        'directions': entry.directions,
        'metric': f'{task.metric}; a uniform guess has {entry.chance} of the symbols right',
        'vocabulary': f'{task.vocab_size}: {_shown(task.vocabulary)}',
        'classes': f'{task.num_classes}: {_shown(task.classes)}',
        'tokens': f'{batch.tokens.shape[-1]} at length {length}',
        'answers': f'{fewest} symbols' if fewest == most else f'{fewest} to {most} symbols in these samples',
    }
    pairs = [entry.readable(jax.tree.map(lambda leaf, i=i: leaf[i], batch)) for i in range(count)]
    samples = aligned([(read, '->', answer) for read, answer in pairs])
    if max(map(len, samples)) > WIDTH:
        samples = [line for read, answer in pairs for line in (read, f'    -> {answer}')]
    lines = ['', *described(entry.call, entry.kind, GIVEN), '', *listed(facts)]
    title = f'samples of length {length}, seed {seed}'
    return '\n'.join([entry.text, *indented(lines), '', title, *(line.rstrip() for line in samples)])


def _shown(symbols: Sequence[str], count: int = 30) -> str:
    """Up to `count` different symbols, as text."""
    different = list(dict.fromkeys(map(spec.visible, symbols)))
    return ' '.join([*different[:count], *['…'] * (len(different) > count)])


# --- The page --------------------------------------------------------------------------------------------------------

INTRODUCTION = """\
# Tasks

Made from the code by `make docs`; a test compares the two. Every task is a file of `mha/tasks`. `python -m
mha.tasks` prints the table below, and `python -m mha.tasks 'SPEC' --length=12` describes any task, with arguments,
and shows samples of it. `--config.task='SPEC'` trains on one.

* **directions**: bidirectional and causal models (both), or causal models only (`model.causal=True`), for which
  prompt and answer are one sequence.
* **classes**: number of different symbols in answers.
* **chance**: accuracy of a uniform guess among the classes.
* **metric**: metric of published tables of the task. Runs always report accuracy per symbol and exact match of
  answers.
* **vocabulary**: symbols that the model reads, with `_` for the placeholder of an answer symbol.
* **level**: class of the task in the Chomsky hierarchy, if it has one (Delétang et al., 2023,
  [arXiv:2207.02098](https://arxiv.org/abs/2207.02098)).

Each task defines its length. Values that depend on the files that a task reads are not shown.
"""


def page(entries: Sequence[tuple[str, Entry]]) -> str:
    """Text of docs/tasks.md, for `entries()`."""
    drawn = zip(*(draw([entry for _, entry in entries], length) for length in LENGTHS), strict=True)
    rows = []
    for (name, entry), examples in zip(entries, drawn, strict=True):
        classes, chance = (str(entry.task.num_classes), entry.chance) if entry.everywhere else ('-', '-')
        facts = {
            'level': entry.task.level or NO_LEVEL,
            'directions': entry.directions,
            'classes': classes,
            'chance': chance,
            'metric': entry.task.metric,
            'vocabulary': f'{entry.task.vocab_size}: {_code(_shown(entry.task.vocabulary))}',
        }
        text = section(name, entry.kind, GIVEN)
        if entry.text != name:
            text.append(f'Described as `{entry.text}`:')
        text.append(grid([list(facts), ['---'] * len(facts), list(facts.values())]))
        example = ''
        if not entry.task.sha256:
            read = {length: entry.readable(one) for length, one in zip(LENGTHS, examples, strict=True)}
            lines = [[str(length), *map(_code, pair)] for length, pair in read.items()]
            text.append(grid([['length', 'input', 'answer'], ['---:', '---', '---'], *lines]))
            example = ' → '.join(_code(clipped(part, 40)) for part in read[LENGTH])
        rows.append((entry.level, [*_cells(name, entry, chance), example], first_sentence(entry.kind), text))
    return prose.page(INTRODUCTION, HEADER, rows, RIGHT)


def _code(text: str) -> str:
    """Code span in Markdown, also for text with backticks."""
    return f'`` {text} ``' if '`' in text else f'`{text}`'


def write(folder: Path) -> None:
    """Writes the page."""
    found, missing = entries()
    if missing:
        raise spec.UserError(f'tasks.md would lack a task - {missing[0]}')
    (folder / 'tasks.md').write_text(page(found), encoding='utf-8')
