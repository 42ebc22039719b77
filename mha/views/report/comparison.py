"""Comparison of runs: one row per setting, with one value per seed and length, and the ranges of lengths to average
over.

The interval over seeds is the 95 % t-interval, t(n - 1) s / sqrt(n), or that of the bootstrap. Published tables give
the maximum over seeds instead (Delétang et al., 2023, arXiv:2207.02098), so both are always shown.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mha import spec
from mha.spec import UserError, as_text, choose, short
from mha.training.metrics import METRICS, Metric, titled
from mha.views.report.labels import TRAINED, following
from mha.views.report.left_out import grouped
from mha.views.report.runs import (
    DIVERGED,
    Run,
    check_comparable,
    evaluation_of,
    evaluations,
    find,
    not_started,
    read,
    same_but_seed,
    span,
    unseen,
    varying,
)
from mha.views.report.statistics import Cell, Kind

Problem = tuple[str, ...]

EVALUATED = {'task': 'evaluated_on', 'position': 'evaluated_under'}
"""Keys of the task and the position scheme of later evaluations, which become settings if they are not the trained
ones."""
AUTO = ('auto',)
"""Metrics that are shown by default: that of the task and, if it is accuracy, exact match."""
SOLVED = 0.9
"""Accuracy or exact match above which a length counts as solved."""


def longest(lengths: Sequence[int], values: np.ndarray) -> int | None:
    """Longest length at which `values` [lengths] exceeds `SOLVED`; None if there is none."""
    return max((length for length, value in zip(lengths, values, strict=True) if value > SOLVED), default=None)


def choose_metric(name: str, run: Run) -> Metric:
    """Metric called `name`; `'auto'` is the metric of the task. Raises `UserError` if the task does not have the
    metric."""
    choose(name, ('auto', *METRICS), 'metric')
    metric = run.metric if name == 'auto' else titled(METRICS[name], run.rows)
    if metric.of_language and not run.metric.of_language:
        raise UserError(f'{metric.title} is for language models, not for the task {run.task} - choose another --metric')
    return metric


@dataclasses.dataclass(frozen=True)
class Range:
    """Evaluated lengths above `low` and up to `high`. With `own`, the lower bound is the longest trained length of each
    run, as in the score."""

    key: str
    name: str
    low: int | float
    high: int | float = math.inf
    own: bool = False

    def inside(self, lengths: Sequence[int], trained: tuple[int, int]) -> np.ndarray:
        low = trained[1] if self.own else self.low
        return (np.array(lengths) > low) & (np.array(lengths) <= self.high)


def ranges(lengths: Sequence[int], *trained: tuple[int, int]) -> list[Range]:
    """Ranges of lengths that a report averages over, in this order: the trained lengths; lengths up to twice, up to
    five times and beyond five times the longest trained length; the score, over all lengths beyond the trained ones. If
    runs differ in trained lengths, each longest trained length ends a range, and the score begins after that of each
    run. Ranges without an evaluated length are left out."""
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
        if len(longest_trained) == 1:  # the same lengths need no second column
            found = [over for over in found if not np.array_equal(evaluated[over.inside(lengths, trained[0])], beyond)]
        name = f'score ({span(beyond)})' if len(longest_trained) == 1 else 'score (beyond trained)'
        found.append(Range('score', name, first, own=True))
    return found


@dataclasses.dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed. `problem` is what they are asked to solve; `values` [seeds, lengths] are
    their results."""

    labels: tuple[str, ...]
    problem: Problem
    trained: tuple[int, int]
    """Shortest and longest trained length."""
    seeds: tuple[int, ...]
    values: np.ndarray
    parameters: int | None
    more_values: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Results [seeds, lengths] in further metrics, by name."""
    diverged: int = 0
    """Number of further runs or members with other seeds that diverged, of which the means know nothing."""

    def only(self, index: int) -> 'Row':
        """Row with only the seed at `index`."""
        one = slice(index, index + 1)
        more = {name: values[one] for name, values in self.more_values.items()}
        return dataclasses.replace(self, seeds=self.seeds[one], values=self.values[one], more_values=more)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Content of a report: everything that the table, the curves and the page show."""

    paths: tuple[Path, ...]
    runs: tuple[Run, ...]
    left_out: tuple[Run, ...]
    metric: Metric
    varying: tuple[str, ...]
    keys: tuple[str, ...]
    """Settings that set rows apart: those that vary or, if none does, the position scheme."""
    rows: tuple[Row, ...]
    baselines: dict[Problem, np.ndarray]
    """Baseline [lengths] of each problem; empty for a metric without a baseline."""
    evaluation: str | None = None
    """Name or lengths of the later evaluation that is compared; None for the evaluation that ends training."""
    only: tuple[str, ...] = ()
    """Conditions that the compared runs meet."""
    more_metrics: tuple[Metric, ...] = ()
    """Further metrics, of which the score is shown."""
    best: str | None = None
    """Setting of which each row has the best value, chosen by the trained lengths."""
    follows: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Those of the `keys` that follow from another one, with that one. They label nothing."""
    interval: Kind = 't'
    """Kind of the intervals over seeds that tables and figures show."""
    panels: str = 'task'
    """Key of which each value has a panel of its own in figures; `'task'` is the problem, `'none'` gives one panel."""

    @property
    def lengths(self) -> tuple[int, ...]:
        return self.runs[0].lengths

    @property
    def trained(self) -> list[tuple[int, int]]:
        """Trained lengths of all rows, without duplicates."""
        return sorted({row.trained for row in self.rows}, key=lambda trained: (trained[1], trained[0]))

    @property
    def ranges(self) -> list[Range]:
        return ranges(self.lengths, *self.trained)

    @property
    def labelled(self) -> list[int]:
        """Indices of the keys that label rows in tables and lines in figures."""
        return [index for index, key in enumerate(self.keys) if key not in self.follows]

    @property
    def headers(self) -> list[str]:
        """Titles of the keys: the last part of each key, or the whole key if the last part is not unique."""
        words = (TRAINED, *EVALUATED.values())
        last = [key.replace('_', ' ') if key in words else short(key) for key in self.keys]
        return [header if last.count(header) == 1 else key for header, key in zip(last, self.keys, strict=True)]

    def index_of(self, name: str, what: str) -> int:
        """Index of a key, by itself or by its title. Raises `UserError` that calls it `what` if it does not vary."""
        constant = any(f'.{key}'.endswith(f'.{name}') for key in self.runs[0].config)
        if name not in (*self.keys, *self.headers) and constant:
            raise UserError(f'{what}: {name!r} does not vary in these runs - choices: {", ".join(self.keys)}')
        choose(name, {*self.keys, *self.headers}, what)
        return self.keys.index(name) if name in self.keys else self.headers.index(name)

    def part(self, row: Row, index: int) -> str:
        """Label as part of a name: `'rope'`, `'heads=4'`."""
        plain = self.keys[index] in ('task', 'model.position')
        return row.labels[index] if plain else f'{self.headers[index]}={row.labels[index]}'

    def name(self, row: Row, panels: str = 'task') -> str:
        """Name of a row: its labels without that of `panels`, and without settings that are not set, if any is."""
        labelled = [index for index in self.labelled if self.keys[index] != panels]
        given = [index for index in labelled if row.labels[index] != as_text(None)]
        parts = [self.part(row, index) for index in given or labelled]
        labels = dict(zip(self.keys, row.labels, strict=True))
        return ', '.join(parts) or labels.get('model.position', self.runs[0].setting('model.position'))

    def scores(self, row: Row, inside: np.ndarray) -> np.ndarray:
        """Mean of each seed over the lengths in the mask `inside`; NaN if there are none."""
        return row.values[:, inside].mean(1) if inside.any() else np.full(len(row.seeds), math.nan)

    def over_seeds(self, scores: np.ndarray, metric: Metric | None = None) -> Cell:
        """Statistics of one score per seed."""
        return Cell(scores, (metric or self.metric).best, self.interval)

    def cell(self, row: Row, over: Range, metric: Metric | None = None) -> Cell:
        """Statistics of a row over a range of lengths, in the metric of the comparison or one of `more_metrics`."""
        if metric in self.more_metrics:
            row = dataclasses.replace(row, values=row.more_values[metric.name])
        return self.over_seeds(self.scores(row, over.inside(self.lengths, row.trained)), metric or self.metric)

    def baseline(self, problem: Problem, over: Range, trained: tuple[int, int]) -> float:
        inside = over.inside(self.lengths, trained)
        return float(self.baselines[problem][inside].mean()) if inside.any() else math.nan

    def baseline_label(self, problem: Problem) -> str:
        return 'baseline' if len(self.baselines) == 1 else f'baseline ({", ".join(problem)})'

    def beats_baseline(self, row: Row) -> bool | None:
        """Whether the mean score exceeds the baseline, a prediction without reading the input; None if there is no
        baseline."""
        if row.problem not in self.baselines:
            return None
        score = self.ranges[-1]
        return self.cell(row, score).mean > self.baseline(row.problem, score, row.trained)


def compare(
    paths: Sequence[Path], metrics: Sequence[str] = AUTO, evaluation: str | None = None, only: Sequence[str] = ()
) -> Comparison:
    """Comparison of the finished runs at or below `paths`, by the evaluation that ends training or by a later
    `evaluation` (its file name or its lengths). The first of `metrics` orders the rows. `only` are conditions such as
    `'model.position=rope'`. Unreadable runs are listed as left out; if `paths` names one of them, `UserError` is raised
    instead."""
    runs = [_left_out(path, reason) for path, reason in unseen(paths).items()]
    for path in find(paths):
        name = evaluation_of(path, evaluation)
        try:
            runs += read(path, name)
        except UserError as error:
            if path in paths:
                raise
            runs.append(_left_out(path, str(error)))
    runs += [_left_out(path, reason) for path, reason in not_started(paths).items()]
    finished = [run for run in runs if run.status == 'finished']
    left_out = [run for run in runs if run.status != 'finished']
    if evaluation:
        missing = f'no evaluation {evaluation}'
        left_out = [_left_out(run.path, missing) if run.status == 'not evaluated' else run for run in left_out]
        if not finished:
            there = sorted({name for run in left_out for name in evaluations(run.path)})
            raise UserError(f'no run has an evaluation {evaluation!r} - there are: {", ".join(there) or "none"}')
    if not finished:
        raise UserError(f'no finished run in {", ".join(map(str, paths))} - {grouped(left_out)}')
    if only:
        finished = _only(finished, only)
    compared = of_runs(finished, metrics, paths=paths, left_out=left_out)
    return dataclasses.replace(compared, evaluation=evaluation, only=tuple(only))


def _only(runs: Sequence[Run], conditions: Sequence[str]) -> list[Run]:
    """Runs that meet all conditions. Members of a population that differ only in their seed are one run, of which the
    asked seeds stay."""
    single = {(index, seed): {**run.config, 'seed': seed} for index, run in enumerate(runs) for seed in run.seeds}
    kept = spec.only(conditions, single)
    seeds = {index: [seed for other, seed in kept if other == index] for index, _ in kept}
    return [
        dataclasses.replace(
            runs[index],
            rows={name: values[np.isin(runs[index].rows['seed'], wanted)] for name, values in runs[index].rows.items()},
        )
        for index, wanted in seeds.items()
    ]


def _left_out(path: Path, reason: str) -> Run:
    return Run(path, {}, {'status': reason}, {})


def of_runs(
    runs: Sequence[Run], metrics: Sequence[str] = AUTO, *, paths: Sequence[Path] = (), left_out: Sequence[Run] = ()
) -> Comparison:
    """Comparison of given runs. Raises `UserError` if their numbers do not belong in one table."""
    check_comparable(runs)
    name, *more = metrics
    of_task = {run.task: choose_metric(name, run) for run in runs}
    if len(set(of_task.values())) > 1:
        names = ', '.join(f'{task}: {value.title}' for task, value in of_task.items())
        raise UserError(f'one table has one metric ({names}) - compare the tasks separately, or use --metric=accuracy')
    measure = of_task[runs[0].task]
    asked = dict.fromkeys(choose_metric(other, run) for other in more for run in runs)
    more_metrics = tuple(other for other in asked if other != measure)
    if tuple(metrics) == AUTO:
        more_metrics = _automatic_metrics(runs, measure)
    runs = _with_evaluated(_with_trained(runs))
    differ = varying(runs)
    others = [key for key in EVALUATED.values() if key in runs[0].config]
    keys = [key for key in differ if not _told_by_trained(key, runs) and key not in others] or ['model.position']
    sources = [key for key in keys if key != 'task' or EVALUATED['task'] not in others]
    follows = following(sources, {tuple(map(run.setting, sources)) for run in runs})
    keys = (*keys, *others)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run.setting(key) for key in keys), []).append(run)
    rows = [
        _row(labels, problem_of(members[0], differ), members, (measure, *more_metrics), left_out)
        for labels, members in groups.items()
    ]
    baselines = _baselines(runs, differ)  # checked for every metric, shown only for accuracy
    if not measure.has_baseline:
        baselines = {}
    found = Comparison(tuple(paths), tuple(runs), tuple(left_out), measure, tuple(differ), keys, tuple(rows), baselines)
    found = dataclasses.replace(found, more_metrics=more_metrics, follows=follows)
    score, sign = found.ranges[-1], -1 if measure.best == 'max' else 1
    rows.sort(key=lambda row: (row.problem, np.nan_to_num(sign * found.cell(row, score).mean, nan=math.inf)))
    return dataclasses.replace(found, rows=tuple(rows))


def _automatic_metrics(runs: Sequence[Run], measure: Metric) -> tuple[Metric, ...]:
    """Metrics shown with that of the task: exact match and macro F1 with accuracy, if all runs have it and it
    differs."""

    def values(metric):
        return np.concatenate([metric.of(run.rows) for run in runs])

    more = (METRICS['exact_match'], METRICS['macro_f1']) if measure.name == 'accuracy' else ()
    own = values(measure)
    return tuple(each for each in more if np.isfinite(values(each)).all() and not np.allclose(values(each), own))


def _with_trained(runs: Sequence[Run]) -> Sequence[Run]:
    """Runs with their trained lengths added as a setting, if runs differ in them."""
    if len({run.trained for run in runs}) == 1:
        return runs
    return [dataclasses.replace(run, config={**run.config, TRAINED: span(run.trained)}) for run in runs]


def _with_evaluated(runs: Sequence[Run]) -> Sequence[Run]:
    """Runs with the task or position scheme of their evaluation added as a setting, if in any run it differs
    from the trained one."""
    for name, key in EVALUATED.items():
        if any(name in run.others for run in runs):
            runs = [dataclasses.replace(run, config={**run.config, key: getattr(run, name)}) for run in runs]
    return runs


def _told_by_trained(key: str, runs: Sequence[Run]) -> bool:
    """Whether a setting only repeats the trained lengths, which have a column already."""
    if key != 'train.lengths' or TRAINED not in runs[0].config:
        return False
    pairs = {(run.setting(TRAINED), run.setting(key)) for run in runs}
    return len(pairs) == len({trained for trained, _ in pairs})


def problem_of(run: Run, differ: Sequence[str]) -> Problem:
    """Problem of a run: the task and, for language models of both directions, the direction. Every problem has its own
    baseline and panel."""
    directed = (
        run.metric.of_language and 'model.causal' in differ
    )  # causal models predict the next byte, others masked bytes
    return (run.task, f'causal={run.setting("model.causal")}') if directed else (run.task,)


def _row(
    labels: tuple[str, ...],
    problem: Problem,
    runs: Sequence[Run],
    metrics: Sequence[Metric],
    left_out: Sequence[Run],
) -> Row:
    """Row of runs that differ in their seed, with results in all `metrics`, the first of which is compared."""
    run_of_seed: dict[int, Run] = {}
    for run in runs:
        for seed in run.seeds:
            if seed in run_of_seed:
                raise UserError(
                    f'{run_of_seed[seed].path} and {run.path} have the same settings and the same seed {seed} - '
                    'leave one out: they are not independent'
                )
            run_of_seed[seed] = run
    seeds = tuple(sorted(run_of_seed))

    def results(metric: Metric) -> np.ndarray:
        lines = {seed: line for run in runs for seed, line in zip(run.seeds, run.values(metric), strict=True)}
        return np.array([lines[seed] for seed in seeds])

    return Row(
        labels=labels,
        problem=problem,
        trained=runs[0].trained,
        seeds=seeds,
        values=results(metrics[0]),
        parameters=runs[0].summary.get('parameters'),
        more_values={metric.name: results(metric) for metric in metrics[1:]},
        diverged=sum(run.status.startswith(DIVERGED) and same_but_seed(runs[0], run) for run in left_out),
    )


def _baselines(runs: Sequence[Run], differ: Sequence[str]) -> dict[Problem, np.ndarray]:
    """Baseline of each problem. It is computed from the evaluation examples, so runs with the same examples must
    agree."""
    found: dict[Problem, tuple[Run, np.ndarray]] = {}
    for run in runs:
        for line in run.grid('baseline'):
            first, known = found.setdefault(problem_of(run, differ), (run, line))
            if not np.allclose(known, line, rtol=0, atol=1e-3, equal_nan=True):
                raise UserError(f'{first.path} and {run.path} were evaluated on different examples of {run.task}')
    return {problem: line for problem, (_, line) in found.items() if not np.isnan(line).any()}
