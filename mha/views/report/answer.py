"""Question and answer of a comparison in a few lines: the best row of each task, which differences the paired tests
find, and which rows exceed the baseline."""

import collections
import dataclasses
import math
from collections.abc import Sequence

from mha.training.metrics import number
from mha.views.report import pivot, statistics
from mha.views.report.comparison import Comparison, Problem

MOST_NAMES = 6
"""Largest number of rows that a line names."""
MOST_CHARACTERS = 60
"""Length up to which the question lists the values of a setting."""
MOST_PAIRS = 20_000
"""Largest number of pairs of rows that are tested."""

Test = tuple[str, statistics.Pair]


@dataclasses.dataclass(frozen=True)
class Best:
    """Best row of a task: its name, its score with the interval, and how it compares."""

    task: str
    row: str
    score: str
    remark: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """Lines for people. `differing` are the pairs whose difference the tests find, the clearest first."""

    question: str
    best: list[Best]
    differences: str
    baseline: str
    tests: list[Test]

    @property
    def differing(self) -> list[Test]:
        return sorted((test for test in self.tests if test[1].differs), key=lambda test: (test[1].p, test[0]))


def answer(comparison: Comparison) -> Answer:
    tests = pivot.pairs(comparison) if _pairs(comparison) <= MOST_PAIRS else []
    problems = dict.fromkeys(row.problem for row in comparison.rows)
    best = [_best(comparison, problem, tests) for problem in problems]
    return Answer(question(comparison), best, _differences(comparison, tests), _baseline(comparison), tests)


def question(comparison: Comparison) -> str:
    """Question of a comparison: the settings that vary with their values, and the number of runs."""
    parts = []
    for index in comparison.labelled:
        values = list(dict.fromkeys(row.labels[index] for row in comparison.rows))
        if len(values) > 1:
            listed = ', '.join(values)
            listed = f' ({listed})' if len(listed) <= MOST_CHARACTERS else ''
            parts.append(f'{len(values)} values of {comparison.headers[index]}{listed}')
    runs = sum(len(row.seeds) for row in comparison.rows)
    over = 'lengths beyond the trained ones' if comparison.ranges[-1].key == 'score' else comparison.ranges[-1].name
    asked = ' and '.join(parts) or 'one setting'
    return f'{comparison.metric.title} at {over}: {asked}; {_count(runs, "result")}, one per row and seed'


def _count(number: int, noun: str) -> str:
    return f'{number:,} {noun}{"" if number == 1 else "s"}'


def _best(comparison: Comparison, problem: Problem, tests: Sequence[Test]) -> Best:
    """Best row of a problem; rows are sorted by score."""
    score = comparison.ranges[-1]
    rows = [row for row in comparison.rows if row.problem == problem]
    row, cell = rows[0], comparison.cell(rows[0], score)
    equal = sum(number(comparison.cell(other, score).mean) == number(cell.mean) for other in rows)
    known = problem in comparison.baselines
    remarks = [f'baseline {number(comparison.baseline(problem, score, row.trained))}'] if known else []
    if equal == len(rows) > 1:
        return Best(', '.join(problem), f'all {equal} rows', number(cell.mean), '; '.join(remarks))
    name = comparison.name(row)
    own = [
        pair
        for task, pair in tests
        if task == problem[0] and name in (pair.first, pair.second) and not math.isnan(pair.p)
    ]
    if own:
        tested = _count(len(own), 'other row') + (' with common seeds' if len(own) < len(rows) - 1 else '')
        remarks.append(f'differs from {sum(pair.differs for pair in own)} of {tested}')
    if row.diverged:
        remarks.append(f'{row.diverged} of {len(row.seeds) + row.diverged} seeds diverged')
    if len(row.seeds) == 1 < len(rows):
        remarks.append('one seed')
    shown = name if equal == 1 else f'{name} and {equal - 1} more'
    return Best(', '.join(problem), shown, f'{number(cell.mean)} {cell.spread}'.rstrip(), '; '.join(remarks))


def _pairs(comparison: Comparison) -> int:
    """Number of pairs of rows of the same problem."""
    sizes = collections.Counter(row.problem for row in comparison.rows)
    return sum(size * (size - 1) // 2 for size in sizes.values())


def _differences(comparison: Comparison, tests: Sequence[Test]) -> str:
    tested, count = [pair for _, pair in tests if not math.isnan(pair.p)], _pairs(comparison)
    if not count:
        return 'No differences are tested: no task has two rows.'
    if count > MOST_PAIRS:
        return f'No differences are tested: there are {count:,} pairs of rows.'
    if not tested:
        return 'No differences are tested: no two rows of a task share two seeds.'
    differing = [pair for pair in tested if pair.differs]
    how = 'paired t-tests over common seeds, p < 0.05 after correction for all pairs (Holm)'
    if not differing:
        return f'None of {len(tested):,} pairs of rows differs in {how}.'
    verb = 'differs' if len(differing) == 1 else 'differ'
    others = f' {count - len(tested):,} pairs have no two common seeds.' if len(tested) < count else ''
    return f'{len(differing):,} of {len(tested):,} pairs of rows {verb} in {how}.{others}'


def _baseline(comparison: Comparison) -> str:
    if not comparison.baselines:
        return f'There is no baseline for {comparison.metric.title}.'
    above = [row for row in comparison.rows if comparison.beats_baseline(row)]
    if not above or len(above) == len(comparison.rows):
        every = 'Every row exceeds' if above else 'No row exceeds'
        return f'{every} the baseline, a prediction without reading the input.'
    listed = list(dict.fromkeys(comparison.name(row) for row in above))
    names = f': {"; ".join(listed)}' if len(listed) <= MOST_NAMES and len(comparison.baselines) == 1 else ''
    verb = 'exceeds' if len(above) == 1 else 'exceed'
    return f'{len(above)} of {_count(len(comparison.rows), "row")} {verb} the baseline{names}.'
