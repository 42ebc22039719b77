"""Runs side by side: one row per setting, one value per seed and length, and what they are averaged over.

The interval is the 95 % t-interval over seeds, t(n - 1) s / sqrt(n). Published tables give the maximum over seeds
instead (Delétang et al., 2023, arXiv:2207.02098), so that is shown beside it, never one without the other.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from mha.spec import UserError, choose, short
from mha.training.metrics import METRICS, Metric
from mha.views.report.runs import (
    Run,
    check_comparable,
    dangling,
    evaluation_of,
    evaluations,
    find,
    read,
    span,
    varying,
)

Problem = tuple[str, ...]

TRAINED = 'trained_lengths'
"""The setting that says what a run was trained on, where runs differ in that."""
EVALUATED = {'task': 'evaluated_on', 'position': 'evaluated_under'}
"""The settings that say what later evaluations were made with, where that is not what was trained."""
SOLVED = 0.9
"""Accuracy, or exact match, above which a length counts as solved."""


def longest(lengths: Sequence[int], values: np.ndarray) -> int | None:
    """The longest length at which `values` [lengths] is above `SOLVED`; None without any."""
    return max((length for length, value in zip(lengths, values, strict=True) if value > SOLVED), default=None)


def choose_metric(name: str, run: Run) -> Metric:
    """`'auto'` is the metric of the task. Raises `UserError` for one that the task does not have."""
    choose(name, ('auto', *METRICS), 'metric')
    metric = run.metric if name == 'auto' else METRICS[name]
    if metric.of_language and not run.metric.of_language:
        raise UserError(f'{metric.title} is for language models, not for the task {run.task} - choose another --metric')
    return metric


@dataclasses.dataclass(frozen=True)
class Range:
    """The evaluated lengths above `low` and up to `high`; of the score, those above each run's own trained ones."""

    key: str
    name: str
    low: int | float
    high: int | float = math.inf
    own: bool = False

    def inside(self, lengths: Sequence[int], trained: tuple[int, int]) -> np.ndarray:
        low = trained[1] if self.own else self.low
        return (np.array(lengths) > low) & (np.array(lengths) <= self.high)


def ranges(lengths: Sequence[int], *trained: tuple[int, int]) -> list[Range]:
    """The trained lengths, then those beyond up to twice, five times and any multiple of the longest trained one, and
    last the score: everything beyond. Where runs differ in trained lengths, every longest one ends a range, and the
    score begins after each run's own. Ranges without an evaluated length are left out."""
    evaluated, longest_trained = np.array(lengths), sorted({high for _, high in trained})
    first, last = longest_trained[0], longest_trained[-1]
    shortest = max(low for low, _ in trained)
    edges = [0, min(shortest - 1, first), *longest_trained, 2 * last, 5 * last, math.inf]
    found = []
    for low, high in itertools.pairwise(edges):
        inside = evaluated[(evaluated > low) & (evaluated <= high)]
        if inside.size:
            mark = ' (trained)' if high == first and low >= shortest - 1 else ''
            found.append(Range(span(inside), span(inside) + mark, low, high))
    beyond = evaluated[evaluated > first]
    if beyond.size:
        if len(longest_trained) == 1:  # not the same lengths twice
            found = [over for over in found if not np.array_equal(evaluated[over.inside(lengths, trained[0])], beyond)]
        name = f'score ({span(beyond)})' if len(longest_trained) == 1 else 'score (beyond trained)'
        found.append(Range('score', name, first, own=True))
    return found


@dataclasses.dataclass(frozen=True)
class Cell:
    """What the seeds of a row gave: `deviation` and `half_width` of the 95 % interval are nan for a single seed, all is
    nan without a length."""

    mean: float
    deviation: float
    half_width: float
    best: float


def half_width(values: np.ndarray) -> np.ndarray:
    """Of the 95 % t-interval for the mean over the first axis, the seeds; nan for one seed."""
    n = len(values)
    if n < 2:
        return np.full(values.shape[1:], math.nan)
    return np.asarray(stdtrit(n - 1, 0.975) * values.std(0, ddof=1) / math.sqrt(n))


@dataclasses.dataclass(frozen=True)
class Row:
    """The runs that differ in nothing but their seed. `problem` is what they were asked to solve, `values` [seeds,
    lengths] how they did."""

    labels: tuple[str, ...]
    problem: Problem
    trained: tuple[int, int]
    """The shortest and the longest length trained on."""
    seeds: tuple[int, ...]
    values: np.ndarray
    parameters: int | None

    def only(self, index: int) -> 'Row':
        """One of its seeds."""
        return dataclasses.replace(self, seeds=(self.seeds[index],), values=self.values[index : index + 1])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Everything that the table, the curves and the page show."""

    paths: tuple[Path, ...]
    runs: tuple[Run, ...]
    left_out: tuple[Run, ...]
    metric: Metric
    varying: tuple[str, ...]
    keys: tuple[str, ...]
    """The settings that label a row: those that vary, or else the position."""
    rows: tuple[Row, ...]
    baselines: dict[Problem, np.ndarray]
    """[lengths] of each problem; none for a metric that has no baseline."""
    evaluation: str | None = None
    """The later evaluation that is compared; None for that of training."""

    @property
    def lengths(self) -> tuple[int, ...]:
        return self.runs[0].lengths

    @property
    def trained(self) -> list[tuple[int, int]]:
        """The trained lengths of the rows, each once."""
        return sorted({row.trained for row in self.rows}, key=lambda trained: (trained[1], trained[0]))

    @property
    def ranges(self) -> list[Range]:
        return ranges(self.lengths, *self.trained)

    @property
    def headers(self) -> list[str]:
        """The last part of each key where that says which."""
        words = (TRAINED, *EVALUATED.values())
        last = [key.replace('_', ' ') if key in words else short(key) for key in self.keys]
        return [header if last.count(header) == 1 else key for header, key in zip(last, self.keys, strict=True)]

    def cell(self, row: Row, over: Range) -> Cell:
        inside = over.inside(self.lengths, row.trained)
        if not inside.any():
            return Cell(*[math.nan] * 4)
        scores = row.values[:, inside].mean(1)
        best = scores.max() if self.metric.best == 'max' else scores.min()
        deviation = scores.std(ddof=1) if len(scores) > 1 else math.nan
        return Cell(float(scores.mean()), float(deviation), float(half_width(scores)), float(best))

    def baseline(self, problem: Problem, over: Range, trained: tuple[int, int]) -> float:
        inside = over.inside(self.lengths, trained)
        return float(self.baselines[problem][inside].mean()) if inside.any() else math.nan

    def baseline_label(self, problem: Problem) -> str:
        return 'baseline' if len(self.baselines) == 1 else f'baseline ({", ".join(problem)})'

    def beats_baseline(self, row: Row) -> bool | None:
        """Whether the mean score is above what an answer without reading the input gets; None without a baseline."""
        if row.problem not in self.baselines:
            return None
        score = self.ranges[-1]
        return self.cell(row, score).mean > self.baseline(row.problem, score, row.trained)


def compare(paths: Sequence[Path], metric: str = 'auto', evaluation: str | None = None) -> Comparison:
    """The finished runs at or below `paths`, by the evaluation that training ended with or by a later one (its file
    name, or its lengths). What cannot be read is left out by name, unless it was named itself."""
    runs = [_left_out(path, 'a link that leads nowhere') for path in dangling(paths)]
    for path in find(paths):
        name = evaluation_of(path, evaluation)
        try:
            runs += read(path, name)
        except UserError as error:
            if path in paths:
                raise
            runs.append(_left_out(path, str(error)))
    finished = [run for run in runs if run.status == 'finished']
    left_out = [run for run in runs if run.status != 'finished']
    if evaluation:
        missing = f'no evaluation {evaluation}'
        left_out = [_left_out(run.path, missing) if run.status == 'not evaluated' else run for run in left_out]
        if not finished:
            there = sorted({name for run in left_out for name in evaluations(run.path)})
            raise UserError(f'no run has an evaluation {evaluation!r} - there are: {", ".join(there) or "none"}')
    if not finished:
        raise UserError(f'no finished run in {", ".join(map(str, paths))} - {unfinished(left_out)}')
    return dataclasses.replace(of_runs(finished, metric, paths=paths, left_out=left_out), evaluation=evaluation)


def _left_out(path: Path, reason: str) -> Run:
    return Run(path, {}, {'status': reason}, {})


def unfinished(left_out: Sequence[Run]) -> str:
    """`'2 runs: a (running), b (not evaluated)'`"""
    named = dict.fromkeys(f'{run.path} ({run.status})' for run in left_out)  # a workdir may hold several
    return f'{len(named)} run{"s" * (len(named) > 1)}: {", ".join(named)}'


def of_runs(
    runs: Sequence[Run], metric: str = 'auto', *, paths: Sequence[Path] = (), left_out: Sequence[Run] = ()
) -> Comparison:
    """Raises `UserError` where the numbers of two runs do not belong in one table."""
    check_comparable(runs)
    metrics = {run.task: choose_metric(metric, run) for run in runs}
    if len(set(metrics.values())) > 1:
        names = ', '.join(f'{task}: {value.title}' for task, value in metrics.items())
        raise UserError(f'one table has one metric ({names}) - compare the tasks separately, or use --metric=accuracy')
    measure = metrics[runs[0].task]
    runs = _with_evaluated(_with_trained(runs))
    differ = varying(runs)
    others = [key for key in EVALUATED.values() if key in runs[0].config]
    keys = [key for key in differ if not _told_by_trained(key, runs) and key not in others] or ['model.position']
    keys = (*keys, *others)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run.setting(key) for key in keys), []).append(run)
    rows = [_row(labels, problem_of(members[0], differ), members, measure) for labels, members in groups.items()]
    baselines = _baselines(runs, differ)  # checked for every metric, shown for the one it is about
    if not measure.has_baseline:
        baselines = {}
    found = Comparison(tuple(paths), tuple(runs), tuple(left_out), measure, tuple(differ), keys, tuple(rows), baselines)
    score, sign = found.ranges[-1], -1 if measure.best == 'max' else 1
    rows.sort(key=lambda row: (row.problem, np.nan_to_num(sign * found.cell(row, score).mean, nan=math.inf)))
    return dataclasses.replace(found, rows=tuple(rows))


def _with_trained(runs: Sequence[Run]) -> Sequence[Run]:
    """The runs with their trained lengths as a setting, where they differ in them."""
    if len({run.trained for run in runs}) == 1:
        return runs
    return [dataclasses.replace(run, config={**run.config, TRAINED: span(run.trained)}) for run in runs]


def _with_evaluated(runs: Sequence[Run]) -> Sequence[Run]:
    """The runs with the task and the scheme that they were evaluated with as settings, where any has others."""
    for name, key in EVALUATED.items():
        if any(name in run.others for run in runs):
            runs = [dataclasses.replace(run, config={**run.config, key: getattr(run, name)}) for run in runs]
    return runs


def _told_by_trained(key: str, runs: Sequence[Run]) -> bool:
    """Whether a setting says no more than the trained lengths, which have a column."""
    if key != 'train.lengths' or TRAINED not in runs[0].config:
        return False
    pairs = {(run.setting(TRAINED), run.setting(key)) for run in runs}
    return len(pairs) == len({trained for trained, _ in pairs})


def problem_of(run: Run, differ: Sequence[str]) -> Problem:
    """The task; of language models also their direction, where that varies. Each problem has a baseline and a picture
    of its own."""
    directed = run.metric.of_language and 'model.causal' in differ  # the next byte, or hidden ones
    return (run.task, f'causal={run.setting("model.causal")}') if directed else (run.task,)


def _row(labels: tuple[str, ...], problem: Problem, runs: Sequence[Run], metric: Metric) -> Row:
    where: dict[int, Run] = {}
    for run in runs:
        for seed in run.seeds:
            if seed in where:
                raise UserError(
                    f'{where[seed].path} and {run.path} have the same settings and the same seed {seed} - one of them '
                    'must go: they are not independent'
                )
            where[seed] = run
    values = {seed: line for run in runs for seed, line in zip(run.seeds, run.grid(metric.column), strict=True)}
    seeds = tuple(sorted(values))
    return Row(
        labels=labels,
        problem=problem,
        trained=runs[0].trained,
        seeds=seeds,
        values=np.array([values[seed] for seed in seeds]) * metric.scale,
        parameters=runs[0].summary.get('parameters'),
    )


def _baselines(runs: Sequence[Run], differ: Sequence[str]) -> dict[Problem, np.ndarray]:
    """Computed from the evaluation examples, hence equal for all runs that met the same ones."""
    found: dict[Problem, tuple[Run, np.ndarray]] = {}
    for run in runs:
        for line in run.grid('baseline'):
            first, known = found.setdefault(problem_of(run, differ), (run, line))
            if not np.allclose(known, line, rtol=0, atol=1e-3, equal_nan=True):
                raise UserError(f'{first.path} and {run.path} were evaluated on different examples of {run.task}')
    return {problem: line for problem, (_, line) in found.items() if not np.isnan(line).any()}
