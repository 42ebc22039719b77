"""Runs side by side: one row per setting, one column per range of lengths, each cell a mean over seeds.

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

from mha.spec import UserError, choose, compact, short
from mha.training.intervals import wilson
from mha.views.report.runs import Run, check_comparable, evaluation_of, evaluations, find, read, span, varying

Problem = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Metric:
    column: str
    name: str
    best: str = 'max'
    scale: float = 1.0


METRICS = {
    'accuracy': Metric('accuracy', 'accuracy per symbol'),
    'exact_match': Metric('exact_match', 'exact match of whole answers'),
    'loss': Metric('loss', 'loss in nats per symbol', 'min'),
}
BITS_PER_BYTE = Metric('loss', 'loss in bits per byte', 'min', 1 / math.log(2))
FEW = 100
"""Examples below which the most frequent class is often so by accident."""
SOLVED = 0.9
"""Accuracy, or exact match, above which a length counts as solved."""


def choose_metric(name: str, run: Run) -> Metric:
    """`'auto'` is the metric of the task, and for text the loss."""
    choose(name, ('auto', *METRICS), 'metric')
    if run.is_text and name in ('auto', 'loss'):
        return BITS_PER_BYTE
    return METRICS[run.metric if name == 'auto' else name]


def longest(lengths: Sequence[int], values: np.ndarray) -> int | None:
    """The longest length at which `values` [lengths] is above `SOLVED`; None without any."""
    return max((length for length, value in zip(lengths, values, strict=True) if value > SOLVED), default=None)


def scores(runs: Sequence[Run]) -> dict[str, float | None]:
    """The runs of a workdir in four numbers, in the metric of their task and averaged over all members: the mean over
    the evaluated lengths up to the longest trained one ('in_range') and beyond ('score'), the longest length solved,
    and this over the longest trained; None without any."""
    run, *_ = runs = [run for run in runs if run.rows]
    values, trained = np.concatenate([run.grid(run.metric) for run in runs]).mean(0), run.trained[1]
    beyond, solved = np.array(run.lengths) > trained, longest(run.lengths, values)
    return {
        'in_range': None if beyond.all() else float(values[~beyond].mean()),
        'score': float(values[beyond].mean()) if beyond.any() else None,
        'longest': solved,
        'longest_share': None if solved is None else solved / trained,
    }


@dataclasses.dataclass(frozen=True)
class Range:
    """Some of the evaluated lengths."""

    key: str
    name: str
    inside: np.ndarray


def ranges(lengths: Sequence[int], trained: tuple[int, int]) -> list[Range]:
    """The trained lengths, then those beyond up to twice, five times and any multiple of the longest trained one, and
    last the score: everything beyond. Ranges without an evaluated length are left out."""
    evaluated, (low, high) = np.array(lengths), trained
    edges = [0, low - 1, high, 2 * high, 5 * high, math.inf]
    found = []
    for first, last in itertools.pairwise(edges):
        inside = (evaluated > first) & (evaluated <= last)
        if inside.any():
            found.append(Range(span(evaluated[inside]), span(evaluated[inside]), inside))
            if last == high:
                found[-1] = dataclasses.replace(found[-1], name=f'{found[-1].name} (trained)')
    beyond = evaluated > high
    if beyond.any():
        found = [item for item in found if not np.array_equal(item.inside, beyond)]
        found.append(Range('score', f'score ({span(evaluated[beyond])})', beyond))
    return found


@dataclasses.dataclass(frozen=True)
class Cell:
    """What the seeds of a row gave; `half_width` of the 95 % interval is nan for a single seed."""

    mean: float
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
    seeds: tuple[int, ...]
    values: np.ndarray
    parameters: int | None


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
    """[lengths] of each problem; none for metrics other than accuracy."""
    evaluation: str | None = None
    """The later evaluation that is compared; None for that of training."""

    @property
    def lengths(self) -> tuple[int, ...]:
        return self.runs[0].lengths

    @property
    def trained(self) -> tuple[int, int]:
        return self.runs[0].trained

    @property
    def ranges(self) -> list[Range]:
        return ranges(self.lengths, self.trained)

    @property
    def headers(self) -> list[str]:
        """The last part of each key where that says which."""
        last = [short(key) for key in self.keys]
        return [header if last.count(header) == 1 else key for header, key in zip(last, self.keys, strict=True)]

    def cell(self, row: Row, over: Range) -> Cell:
        scores = row.values[:, over.inside].mean(1)
        best = scores.max() if self.metric.best == 'max' else scores.min()
        return Cell(float(scores.mean()), float(half_width(scores)), float(best))

    def baseline(self, problem: Problem, over: Range) -> float:
        return float(self.baselines[problem][over.inside].mean())

    def baseline_label(self, problem: Problem) -> str:
        return 'baseline' if len(self.baselines) == 1 else f'baseline ({", ".join(problem)})'

    def beats_baseline(self, row: Row) -> bool | None:
        """Whether the mean score is above what an answer without reading the input gets; None without a baseline."""
        if row.problem not in self.baselines:
            return None
        score = self.ranges[-1]
        return self.cell(row, score).mean > self.baseline(row.problem, score)


def compare(paths: Sequence[Path], metric: str = 'auto', evaluation: str | None = None) -> Comparison:
    """The finished runs at or below `paths`, by the evaluation that training ended with or by a later one (its file
    name, or its lengths)."""
    runs = [run for path in find(paths) for run in read(path, evaluation_of(path, evaluation))]
    finished = [run for run in runs if run.status == 'finished']
    left_out = [run for run in runs if run.status != 'finished']
    if not finished and evaluation and left_out:
        there = sorted({name for run in left_out for name in evaluations(run.path)})
        raise UserError(f'no run has an evaluation {evaluation!r} - there are: {", ".join(there) or "none"}')
    if not finished:
        raise UserError(f'no finished run in {", ".join(map(str, paths))} - {unfinished(left_out)}')
    return dataclasses.replace(of_runs(finished, metric, paths=paths, left_out=left_out), evaluation=evaluation)


def unfinished(left_out: Sequence[Run]) -> str:
    """`'2 unfinished runs: a (running), b (not evaluated)'`"""
    named = dict.fromkeys(f'{run.path} ({run.status})' for run in left_out)  # a workdir may hold several
    return f'{len(named)} unfinished run{"s" * (len(named) > 1)}: {", ".join(named)}'


def of_runs(
    runs: Sequence[Run], metric: str = 'auto', *, paths: Sequence[Path] = (), left_out: Sequence[Run] = ()
) -> Comparison:
    """Raises `UserError` where the numbers of two runs do not belong in one table."""
    check_comparable(runs)
    metrics = {run.task: choose_metric(metric, run) for run in runs}
    if len(set(metrics.values())) > 1:
        names = ', '.join(f'{task}: {value.name}' for task, value in metrics.items())
        raise UserError(f'one table has one metric ({names}) - compare the tasks separately, or use --metric=accuracy')
    measure = metrics[runs[0].task]
    differ = varying(runs)
    keys = tuple(differ) or ('model.position',)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run.setting(key) for key in keys), []).append(run)
    rows = [_row(labels, problem_of(members[0], differ), members, measure) for labels, members in groups.items()]
    score, sign = ranges(runs[0].lengths, runs[0].trained)[-1], -1 if measure.best == 'max' else 1
    rows.sort(key=lambda row: (row.problem, np.nan_to_num(sign * row.values[:, score.inside].mean(), nan=math.inf)))
    baselines = _baselines(runs, differ)  # checked for every metric, shown for the one it is about
    if measure.column != 'accuracy':
        baselines = {}
    return Comparison(tuple(paths), tuple(runs), tuple(left_out), measure, tuple(differ), keys, tuple(rows), baselines)


def problem_of(run: Run, differ: Sequence[str]) -> Problem:
    """The task; of text also its direction, where that varies. Each problem has a baseline and a picture of its own."""
    directed = run.is_text and 'model.causal' in differ  # the next byte, or hidden ones
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


def number(value: float) -> str:
    return f'{value:.3f}'


def grid(comparison: Comparison, best_everywhere: bool = True) -> tuple[list[str], list[list[str]]]:
    """The table as text: headers and lines. The best seed is shown in every range, or in the last, the score, only."""
    columns = comparison.ranges
    lines = []
    for row in comparison.rows:
        marked = [row.labels[0] + (' †' if comparison.beats_baseline(row) is False else ''), *row.labels[1:]]
        for over in columns:
            cell = comparison.cell(row, over)
            text = number(cell.mean)
            if len(row.seeds) > 1:
                text += f' ± {number(cell.half_width)}'
                if best_everywhere or over is columns[-1]:
                    text += f' ({comparison.metric.best} {number(cell.best)})'
            marked.append(text)
        seeds = '1 seed' if len(row.seeds) == 1 else f'{len(row.seeds)} seeds'
        lines.append([*marked, seeds, '' if row.parameters is None else f'{row.parameters:,}'])
    for problem in comparison.baselines:
        label = comparison.baseline_label(problem)
        means = [number(comparison.baseline(problem, over)) for over in columns]
        lines.append([label, *[''] * (len(comparison.keys) - 1), *means, '', ''])
    return [*comparison.headers, *(over.name for over in columns), 'seeds', 'parameters'], lines


def text(comparison: Comparison) -> str:
    """For a terminal."""
    headers, lines = grid(comparison, best_everywhere=False)
    return '\n'.join([*_ruled([headers, *lines], left=len(comparison.keys)), '', *notes(comparison)])


def align(lines: Sequence[Sequence[str]], left: int) -> list[list[str]]:
    """Cells padded to the width of their column, all but the first `left` to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]


def _ruled(lines: Sequence[Sequence[str]], left: int) -> list[str]:
    first, *rest = ('   '.join(line) for line in align(lines, left))
    return [first, '─' * len(first), *(line.rstrip() for line in rest)]


def notes(comparison: Comparison) -> list[str]:
    """What must be known to read the numbers: the facts in a line, then the marks that the table uses."""
    found = [facts(comparison)]
    if comparison.baselines:
        found.append('baseline: always the most frequent class of the evaluation data, without reading the input')
        if (few := int(comparison.runs[0].rows['examples'].min())) < FEW:
            found.append(f'{few} examples are their own baseline: it is too high')
    if any(comparison.beats_baseline(row) is False for row in comparison.rows):
        found.append('† the mean score is not above the baseline')
    return found


def facts(comparison: Comparison) -> str:
    """One line: task, lengths, examples, metric, aggregation, seeds and training."""
    first = comparison.runs[0]
    tasks = list(dict.fromkeys(row.problem[0] for row in comparison.rows))
    counts = sorted({int(count) for count in first.rows['examples']})
    seeds = {row.seeds for row in comparison.rows}
    listed = compact(next(iter(seeds))) if len(seeds) == 1 else ''
    if max(len(row.seeds) for row in comparison.rows) > 1:
        over = f'seeds {listed}' if listed else 'the seeds of each row'
        spread = f'mean ± 95 % t-interval over {over}, and {comparison.metric.best}imum'
    else:
        spread = f'1 seed ({listed}), so no interval' if listed else '1 seed per row, so no interval'
    found = [
        f'{"task" if len(tasks) == 1 else "tasks"} {", ".join(tasks)}',
        f'trained on lengths {span(comparison.trained)}',
        f'evaluated at {compact(comparison.lengths)}',
        f'{compact(counts)} examples per length',
        f'{comparison.metric.name}, averaged over the lengths of a column',
        spread,
    ]
    for name, key in {'steps': 'steps', 'batch size': 'train.batch_size', 'learning rate': 'learning_rate'}.items():
        found += [
            f'{name} {"varies" if full in comparison.varying else first.setting(full)}'
            for full in first.config
            if full == key or full.endswith(f'.{key}')
        ]
    if 'model.causal' in first.config and 'model.causal' not in comparison.varying:
        found.append('causal attention' if first.config['model.causal'] else 'attention in both directions')
    return '; '.join(found)


def summarise(runs: Sequence[Run]) -> str:
    """The runs of a workdir on one screen. Exact match has the interval over its examples: they are independent, the
    symbols of an answer are not. Over several lengths the interval is at most too wide."""
    left_out, runs = [run for run in runs if not run.rows], [run for run in runs if run.rows]
    if not runs:
        raise UserError(
            f'{left_out[0].path} holds no results ({left_out[0].status}) - without its extrapolation.csv the same '
            'train.py command evaluates it again'
        )
    comparison, run = of_runs(runs), runs[0]
    lost = [f'left out {unfinished(left_out)}'] if left_out else []
    if len(runs) > 1 or len(run.seeds) > 1:
        return '\n'.join([text(comparison), *lost])
    bits = choose_metric('loss', run)
    columns = {'accuracy': 1.0, 'exact_match': 1.0, 'loss': bits.scale, 'baseline': 1.0}
    loss, baseline = ('bits per byte', 'baseline accuracy') if run.is_text else ('loss', 'baseline')
    headers = ['lengths', 'accuracy', 'exact match', loss, baseline]
    lines = []
    for over in ranges(run.lengths, run.trained):
        means = {name: float(run.grid(name)[:, over.inside].mean()) for name in columns}
        shown = {name: number(means[name] * scale) for name, scale in columns.items()}
        if not math.isnan(means['exact_match']):
            count = int(run.grid('examples')[0, over.inside].sum())
            low, high = wilson(round(means['exact_match'] * count), count)
            shown['exact_match'] += f' [{number(low)}, {number(high)}]'
        lines.append([over.name, *shown.values()])
    if comparison.beats_baseline(comparison.rows[0]) is False:
        lines[-1][0] += ' †'
    note = 'in brackets: 95 % interval over the examples of this one run (Wilson), whole answers right or not'
    return '\n'.join([*_ruled([headers, *lines], left=1), '', *_solved(run), note, *notes(comparison), *lost])


def _solved(run: Run) -> list[str]:
    """The longest length solved, in a line; of text there is none."""
    if run.is_text:
        return []
    solved, share = (scores([run])[name] for name in ('longest', 'longest_share'))
    found = 'none' if share is None else f'{solved}, {share:.3g} times the longest trained one'
    return [f'longest length with {METRICS[run.metric].name} above {SOLVED}: {found}']
