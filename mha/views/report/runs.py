"""Runs as files: finding them, reading them, and the settings in which they differ."""

import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mha.run import fields, manifest, population, versions
from mha.spec import UserError, as_text, choose, compact, escaped, flatten, lengths
from mha.training import metrics

COLUMNS = ('seed', *metrics.COLUMNS)
NOT_SETTINGS = (
    'seed',  # rows average over it
    'eval.lengths',  # the evaluated lengths are compared instead
    *(
        'mesh.data',
        'mesh.model',
        'train.members',
        'train.microbatches',
        'model.remat',
    ),  # they change how results are computed, not the results
    *('train.log_every_steps', 'train.checkpoint_every_steps', 'eval.batch_size', 'eval.buckets'),
)
DIVERGED = 'diverged'
"""Status of a run whose loss is not finite; with the name of the member for one of a population."""
TRAINED = 'extrapolation.csv'
"""File of the evaluation that ends training."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run; or, for a population, those members that differ only in their seed."""

    path: Path
    config: Mapping[str, Any]
    """Flat config, with keys such as `'model.position'`."""
    summary: Mapping[str, Any]
    rows: Mapping[str, np.ndarray]
    """Columns of the result file, sorted by seed, then by length; empty before the first evaluation."""
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Versions of packages and state of the code when the run was started; empty if they are not known."""
    others: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """`task` and `position` of a later evaluation, if they are not the trained ones."""

    @property
    def status(self) -> str:
        status = self.summary.get('status') or 'not started'
        return 'not evaluated' if status == 'finished' and not self.rows else escaped(status)

    def setting(self, key: str) -> str:
        """Setting as text; a dash if the config does not have the key."""
        return escaped(as_text(self.config.get(key, '-')))

    @property
    def task(self) -> str:
        return self.others.get('task', self.setting('task'))

    @property
    def position(self) -> str:
        """Position scheme of the evaluation."""
        trained = 'train.final_position' if self.config.get('train.final_position') else 'model.position'
        return self.others.get('position', self.setting(trained))

    @property
    def metric(self) -> metrics.Metric:
        """Metric that published tables of the task report."""
        name = versions.metric(self.summary, self.config)
        metric = metrics.METRICS[choose(name, metrics.METRICS, f'metric in {self.path / "summary.json"}')]
        return metrics.titled(metric, self.rows)

    @property
    def trained(self) -> tuple[int, int]:
        """Shortest and longest trained length."""
        found = self.summary.get('trained_lengths') or lengths(self.setting('train.lengths'), 'train.lengths')
        return int(min(found)), int(max(found))

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(int(length) for length in np.unique(self.rows['length']))

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(int(seed) for seed in np.unique(self.rows['seed']))

    def grid(self, column: str) -> np.ndarray:
        """Values of a column as [seeds, lengths]."""
        return self.rows[column].reshape(len(self.seeds), len(self.lengths))

    def values(self, metric: metrics.Metric) -> np.ndarray:
        """Values of a metric as [seeds, lengths]."""
        return np.asarray(metric.of(self.rows)).reshape(len(self.seeds), len(self.lengths))


def find(paths: Iterable[str | Path]) -> list[Path]:
    """Directories of the runs at or below each path, without duplicates. A run is a directory with a config.json. Links
    are followed."""
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise UserError(f'no directory {str(path)!r} - name a run, or a directory with runs below it')
        here = sorted(_below(path, set()))
        if not here:
            raise UserError(f'no run in {str(path)!r} - a run is a directory with a config.json')
        for folder in here:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _below(path: Path, seen: set[Path]) -> Iterator[Path]:
    """Directories of the runs at or below `path`. `seen` holds the directories already searched, because links may form
    cycles."""
    for folder, below, files in os.walk(path, followlinks=True):
        below[:] = [name for name in below if _new(Path(folder, name), seen)]
        if 'config.json' in files:
            yield Path(folder)
            below.clear()  # directories inside a run belong to it


def _new(folder: Path, seen: set[Path]) -> bool:
    known = folder.resolve() in seen
    seen.add(folder.resolve())
    return not known


def unseen(paths: Iterable[str | Path]) -> dict[Path, str]:
    """Broken links and unreadable directories at or below each path, which may hold runs, and what they are. Those
    inside runs are ignored."""
    found: dict[Path, str] = {}
    for path in paths:
        closed: list[OSError] = []
        for folder, below, names in os.walk(path, onerror=closed.append):
            if 'config.json' in names:
                below.clear()
            else:
                broken = [Path(folder, name) for name in sorted(names) if not os.path.exists(Path(folder, name))]
                found |= dict.fromkeys(broken, 'a link that leads nowhere')
        found |= {Path(error.filename): f'cannot be read: {error.strerror}' for error in closed}
    return found


def not_started(paths: Iterable[Path]) -> dict[Path, str]:
    """Cells without a run, of the sweeps among `paths`, and why: `'not started'`, or the last line of one that
    failed."""
    found = {}
    for path in paths:
        errors = manifest.failures(path)
        for name in manifest.read(path):
            if not (path / 'cells' / name / 'config.json').exists():
                found[path / 'cells' / name] = f'failed: {errors[name]}' if name in errors else 'not started'
    return found


def evaluations(workdir: Path) -> list[str]:
    """File names of the later evaluations of a run."""
    found = (path for path in workdir.glob('evaluation_*.csv') if not path.stem.endswith(('_positions', '_confusion')))
    return sorted(path.name for path in found)


def evaluation_of(workdir: Path, asked: str | None) -> str:
    """File name of the evaluation with the name or the lengths `asked`; `asked` itself if there is none."""
    there = evaluations(workdir)
    if asked is None:
        return TRAINED
    for name in there:
        if asked in (name, name.removesuffix('.csv'), name.removeprefix('evaluation_').removesuffix('.csv')):
            return name
    if not re.fullmatch(r'[\d,:-]+', asked):
        return asked
    wanted = lengths(asked, '--evaluation')
    found = [name for name in there if _lengths(workdir / name) == wanted]
    if len(found) > 1:
        raise UserError(f'{workdir} has several evaluations at {asked}: {", ".join(found)} - name one of them')
    return found[0] if found else asked


def _lengths(path: Path) -> tuple[int, ...]:
    """Lengths of a result file; empty if the file cannot be read."""
    with contextlib.suppress(UserError):
        return tuple(sorted({record['length'] for record in fields.read_table(path, fields.RESULTS)}))
    return ()


def read(workdir: Path, evaluation: str = TRAINED) -> list[Run]:
    """Runs in a directory, finished or not, with the results of one evaluation; a run without results has no rows.
    Members of a population that differ in more than their seed are separate runs, and so is each member that
    diverged."""
    config = {'population': {}, **versions.read_config(workdir / 'config.json')}
    summary = fields.read_json(workdir / 'summary.json', fields.SUMMARY)
    environment = fields.read_json(workdir / 'environment.json', fields.ENVIRONMENT)
    return of(workdir, config, summary, evaluation, environment)


def of(
    workdir: Path,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    evaluation: str,
    environment: Mapping[str, Any] = {},
) -> list[Run]:
    """Runs with a given config and summary and the results of an evaluation in a directory; see `read`."""
    alike: dict[tuple[float, ...], population.Member] = {}
    for member in population.members(config):
        alike.setdefault(tuple(value for name, value in member.items() if name != 'seed'), member)

    path = workdir / evaluation
    records = fields.read_table(path, fields.RESULTS) if path.exists() else []

    def run(member, summary, rows):
        settings, others = flatten(population.config_of(config, member)), _others(records) if rows else {}
        return Run(workdir, settings, summary, rows, environment, others)

    found = []
    for member in alike.values():
        rows = _of_member(records, member, path)
        if rows or not summary.get('diverged'):
            found.append(run(member, summary, rows))
    for member in summary.get('diverged') or ():
        found.append(run(member, {**summary, 'status': f'{DIVERGED}: {population.named(member)}'}, {}))
    for each in found:
        _check(each)
    return found


def _check(run: Run) -> None:
    """Raises `UserError` if a run with results has no valid metric or trained lengths."""
    if not run.rows:
        return
    try:
        _ = run.metric, run.trained
    except UserError as error:
        raise UserError(f'cannot read the run in {run.path}: {error}') from error


def _others(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Task and position scheme of result records, as far as they have fields for them."""
    found = {name: escaped(records[0][name]) for name in ('task', 'position') if records[0].get(name)}
    return found | {name: versions.task(found[name]) for name in found if name == 'task'}


def _of_member(records: Sequence[Mapping[str, Any]], member: population.Member, path: Path) -> dict[str, np.ndarray]:
    """Columns of the results of all members that differ from `member` only in their seed."""
    others = {name: value for name, value in member.items() if name != 'seed'}
    if missing := [name for name in others if records and name not in records[0]]:
        raise UserError(f'{path} has no column {missing[0]!r}, in which the members of the population differ')
    records = [record for record in records if all(record[name] == others[name] for name in others)]
    if not records:
        return {}
    rows = {
        column: np.array([math.nan if (value := record.get(column)) is None else value for record in records], float)
        for column in ('seed', *metrics.ALL_COLUMNS)
    }
    order = np.lexsort((rows['length'], rows['seed']))
    rows = {column: values[order] for column, values in rows.items()}
    pairs = [(seed, length) for seed in np.unique(rows['seed']) for length in np.unique(rows['length'])]
    if list(zip(rows['seed'], rows['length'], strict=True)) != pairs:
        raise UserError(f'{path} must have every length once for every seed')
    return rows


def span(lengths: Sequence[int] | np.ndarray) -> str:
    """Text of a range of lengths: `'1-20'`, or `'128'` for a single length."""
    low, high = min(lengths), max(lengths)
    return str(low) if low == high else f'{low}-{high}'


def varying(runs: Sequence[Run]) -> list[str]:
    """Keys of the settings in which runs differ."""
    keys = dict.fromkeys(key for run in runs for key in run.config if key not in NOT_SETTINGS)
    return [key for key in keys if len({run.setting(key) for run in runs}) > 1]


def same_but_seed(one: Run, other: Run) -> bool:
    """Whether `other` has the settings of `one`, to which columns of a report may have been added, up to its seed."""
    return all(one.setting(key) == other.setting(key) for key in other.config if key not in NOT_SETTINGS)


def check_comparable(runs: Sequence[Run]) -> None:
    """Raises `UserError` if the numbers of the runs have different meanings."""
    for run in runs[1:]:
        for what, of in {
            'evaluated lengths': lambda run: compact(run.lengths),
            'examples per length': lambda run: compact(sorted({int(count) for count in run.rows['examples']})),
            'eval.seed': lambda run: run.setting('eval.seed'),
        }.items():
            one, other = of(runs[0]), of(run)
            if one != other:
                again = (
                    '' if what == 'eval.seed' else ', or evaluate both alike by eval.py and choose that by --evaluation'
                )
                raise UserError(
                    f'{runs[0].path} and {run.path} differ in {what} ({one} against {other}) - compare them '
                    f'separately{again}'
                )
