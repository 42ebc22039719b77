"""Question and answer of a comparison in a few lines: the best row of each task, which differences the paired tests
find, and which rows exceed the baseline."""

import dataclasses
from collections.abc import Sequence

from mha.training.metrics import number
from mha.views.report import pivot, statistics
from mha.views.report.comparison import Comparison, Problem, Row

MOST_VALUES = 6
"""Largest number of values of a setting that the question lists."""
MOST_PAIRS = 20_000
"""Largest number of pairs of rows that are tested."""

Test = tuple[str, statistics.Pair]


@dataclasses.dataclass(frozen=True)
class Answer:
    """Lines for people. `differing` are the pairs whose difference the tests find, the clearest first."""

    question: str
    best: list[tuple[str, str]]
    """Task, and text of its best row."""
    differences: str
    baseline: str
    tests: list[Test]

    @property
    def differing(self) -> list[Test]:
        return sorted((test for test in self.tests if test[1].differs), key=lambda test: (test[1].p, test[0]))


def answer(comparison: Comparison) -> Answer:
    tests = _tests(comparison)
    problems = dict.fromkeys(row.problem for row in comparison.rows)
    best = [(', '.join(problem), _best(comparison, problem, tests)) for problem in problems]
    return Answer(question(comparison), best, _differences(comparison, tests), _baseline(comparison), tests)


def question(comparison: Comparison) -> str:
    """What was compared: the settings that vary with their values, and the number of runs."""
    parts = []
    for index, header in enumerate(comparison.headers):
        values = list(dict.fromkeys(row.labels[index] for row in comparison.rows))
        if len(values) > 1:
            listed = ', '.join(values[:MOST_VALUES]) + (', ..' if len(values) > MOST_VALUES else '')
            parts.append(f'{len(values)} values of {header} ({listed})')
    runs = sum(len(row.seeds) for row in comparison.rows)
    over = 'lengths beyond the trained ones' if comparison.ranges[-1].key == 'score' else comparison.ranges[-1].name
    asked = ' and '.join(parts) or 'one setting'
    return f'{comparison.metric.title} at {over}: {asked}; {_count(runs, "result")}, one per row and seed'


def name(comparison: Comparison, row: Row) -> str:
    """Labels of a row, without its task."""
    labels = [label for key, label in zip(comparison.keys, row.labels, strict=True) if key != 'task']
    return ', '.join(labels) or row.problem[0]


def _count(number: int, noun: str) -> str:
    return f'{number:,} {noun}{"" if number == 1 else "s"}'


def _best(comparison: Comparison, problem: Problem, tests: Sequence[Test]) -> str:
    """Text of the best row of a problem, and the number of rows from which it differs; rows are sorted by score."""
    score = comparison.ranges[-1]
    row = next(row for row in comparison.rows if row.problem == problem)
    cell = comparison.cell(row, score)
    spread = '' if len(row.seeds) == 1 else f' ± {number(cell.half_width)}'
    known = problem in comparison.baselines
    baseline = f' (baseline {number(comparison.baseline(problem, score, row.trained))})' if known else ''
    own = [pair for task, pair in tests if task == problem[0] and name(comparison, row) in (pair.first, pair.second)]
    differs = f'; differs from {sum(pair.differs for pair in own)} of {_count(len(own), "other")}' if own else ''
    return f'{name(comparison, row)}: {number(cell.mean)}{spread}{baseline}{differs}'


def _tests(comparison: Comparison) -> list[Test]:
    sizes = [sum(row.problem == problem for row in comparison.rows) for problem in {r.problem for r in comparison.rows}]
    if sum(size * (size - 1) // 2 for size in sizes) > MOST_PAIRS:
        return []
    return pivot.pairs(comparison)


def _differences(comparison: Comparison, tests: Sequence[Test]) -> str:
    tested = [pair for _, pair in tests if pair.p == pair.p]
    if not tested:
        rows = len(comparison.rows) > 1
        reason = 'no two rows of a task share two seeds' if rows else 'there is one row'
        return f'No differences are tested: {reason if len(tests) or not rows else "there are too many pairs"}.'
    differing = [pair for pair in tested if pair.differs]
    how = 'paired t-tests over common seeds, p < 0.05 after correction for all pairs (Holm)'
    if not differing:
        return f'None of {_count(len(tested), "pair")} of rows differs in {how}.'
    return f'{len(differing)} of {_count(len(tested), "pair")} of rows differ in {how}.'


def _baseline(comparison: Comparison) -> str:
    if not comparison.baselines:
        return f'There is no baseline for {comparison.metric.title}.'
    above = [row for row in comparison.rows if comparison.beats_baseline(row)]
    if not above or len(above) == len(comparison.rows):
        every = 'Every row exceeds' if above else 'No row exceeds'
        return f'{every} the baseline, a prediction without reading the input.'
    listed = list(dict.fromkeys(name(comparison, row) for row in above))
    names = f': {"; ".join(listed)}' if len(listed) <= MOST_VALUES and len(comparison.baselines) == 1 else ''
    verb = 'exceeds' if len(above) == 1 else 'exceed'
    return f'{len(above)} of {_count(len(comparison.rows), "row")} {verb} the baseline{names}.'
