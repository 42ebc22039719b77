"""Runs as files: finding them, reading them, and what differs between their settings."""

import csv
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mha.run import population
from mha.spec import UserError, compact, flatten, lengths, parse

COLUMNS = ('seed', 'length', 'accuracy', 'exact_match', 'loss', 'baseline', 'examples')
NOT_SETTINGS = (
    'seed',  # averaged over
    'eval.lengths',  # compared as evaluated
    *('mesh.data', 'mesh.model', 'train.members', 'train.microbatches', 'model.remat'),  # how, not what, is computed
    *('train.log_every_steps', 'train.checkpoint_every_steps', 'eval.batch_size', 'eval.buckets'),
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One workdir, or those of its members that differ in nothing but their seed."""

    path: Path
    config: Mapping[str, Any]
    """Flattened: `'model.position'`."""
    summary: Mapping[str, Any]
    rows: Mapping[str, np.ndarray]
    """The columns of extrapolation.csv, sorted by seed, then length; empty before the first evaluation."""

    @property
    def status(self) -> str:
        status = str(self.summary.get('status', 'not started'))
        return 'not evaluated' if status == 'finished' and not self.rows else status

    def setting(self, key: str) -> str:
        """As text; a dash where the config does not have the key."""
        return text(self.config.get(key, '-'))

    @property
    def task(self) -> str:
        return self.setting('task')

    @property
    def is_text(self) -> bool:
        return parse(self.task)[0].name == 'text'

    @property
    def metric(self) -> str:
        """The column that published tables of the task show."""
        return str(self.summary.get('metric', 'accuracy'))

    @property
    def trained(self) -> tuple[int, int]:
        """The shortest and the longest length trained on."""
        found = self.summary.get('trained_lengths') or lengths(self.setting('train.lengths'), 'train.lengths')
        return int(min(found)), int(max(found))

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(int(length) for length in np.unique(self.rows['length']))

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(int(seed) for seed in np.unique(self.rows['seed']))

    def grid(self, column: str) -> np.ndarray:
        """A column as [seeds, lengths]."""
        return self.rows[column].reshape(len(self.seeds), len(self.lengths))


def find(paths: Iterable[str | Path]) -> list[Path]:
    """The runs at or below each path, each once: directories that hold a config.json."""
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise UserError(f'no directory {str(path)!r} - name a run, or a directory with runs below it')
        here: list[Path] = []
        for folder, below, files in os.walk(path):
            if 'config.json' in files:
                here.append(Path(folder))
                below.clear()  # what lies inside a run belongs to it
        if not here:
            raise UserError(f'no run in {str(path)!r} - a run is a directory with a config.json')
        for folder in sorted(here):
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def read(workdir: Path, evaluation: str = 'extrapolation.csv') -> list[Run]:
    """The runs of a workdir in any state, with one of its range evaluations; what is not written yet is empty. A
    workdir has several where members of its population differ in more than their seed, and one for each that
    diverged."""
    config, path = {'population': {}, **_json(workdir / 'config.json')}, workdir / 'summary.json'
    summary = _json(path) if path.exists() else {}
    alike: dict[tuple[float, ...], population.Member] = {}
    for member in population.members(config):
        alike.setdefault(tuple(value for name, value in member.items() if name != 'seed'), member)

    def run(member, summary, rows):
        return Run(workdir, flatten(population.config_of(config, member)), summary, rows)

    found = []
    for member in alike.values():
        rows = _csv(workdir / evaluation, member) if (workdir / evaluation).exists() else {}
        if rows or not summary.get('diverged'):
            found.append(run(member, summary, rows))
    for member in summary.get('diverged', []):
        found.append(run(member, summary | {'status': f'diverged: {population.named(member)}'}, {}))
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f'cannot read {str(path)!r}: {error}') from error
    if not isinstance(content, dict):
        raise UserError(f'{str(path)!r} must hold one JSON object')
    return content


def _csv(path: Path, member: population.Member) -> dict[str, np.ndarray]:
    """The rows of all members that differ from this one in nothing but their seed."""
    with path.open(newline='') as file:
        records = list(csv.DictReader(file))
    others = {name: value for name, value in member.items() if name != 'seed'}
    try:
        records = [record for record in records if all(float(record[name]) == others[name] for name in others)]
        rows = {column: np.array([float(record[column] or 'nan') for record in records]) for column in COLUMNS}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f'cannot read {str(path)!r} ({error}) - its columns are {",".join(COLUMNS)}') from error
    if not records:
        return {}
    order = np.lexsort((rows['length'], rows['seed']))
    rows = {column: values[order] for column, values in rows.items()}
    pairs = [(seed, length) for seed in np.unique(rows['seed']) for length in np.unique(rows['length'])]
    if list(zip(rows['seed'], rows['length'], strict=True)) != pairs:
        raise UserError(f'{str(path)!r} must have every length once for every seed')
    return rows


def text(value: Any) -> str:
    """A setting as it is compared and shown: 1 and 1.0 are the same."""
    return f'{value:.12g}' if isinstance(value, float) else str(value)


def span(lengths: Sequence[int] | np.ndarray) -> str:
    """'1-20', or '128' where all are the same."""
    low, high = min(lengths), max(lengths)
    return str(low) if low == high else f'{low}-{high}'


def varying(runs: Sequence[Run]) -> list[str]:
    """The settings that are not the same in all runs."""
    keys = dict.fromkeys(key for run in runs for key in run.config if key not in NOT_SETTINGS)
    return [key for key in keys if len({run.setting(key) for run in runs}) > 1]


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuses runs whose numbers mean different things, however alike the columns look."""
    for run in runs[1:]:
        for what, of in {
            'trained lengths': lambda run: span(run.trained),
            'evaluated lengths': lambda run: compact(run.lengths),
            'examples per length': lambda run: compact(sorted({int(count) for count in run.rows['examples']})),
            'eval.seed': lambda run: run.setting('eval.seed'),
        }.items():
            one, other = of(runs[0]), of(run)
            if one != other:
                raise UserError(
                    f'{runs[0].path} and {run.path} differ in {what} ({one} against {other}) - compare them separately'
                )
