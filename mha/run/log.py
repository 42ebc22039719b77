"""Training metrics of a run: `metrics.jsonl` is the record, sinks such as TensorBoard are for viewing. If several
processes train, only the first writes them."""

import errno
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mha.machine import files, parallel
from mha.run import fields
from mha.run.sinks import Sink
from mha.spec import UserError
from mha.training.metrics import ALL_COLUMNS


class Metrics:
    """Writer of training metrics: one JSON object per log step and member, and the same for each sink. A resumed run
    first drops the records after its checkpoint, because those steps are repeated."""

    def __init__(self, workdir: Path, step: int, sinks: Sequence[Sink] = ()):
        self.workdir, self.step = workdir, step
        path, writes = workdir / 'metrics.jsonl', parallel.first()
        if writes:
            records, broken = read(path)
            if broken:
                print(f'note: {path} had {broken} lines that cannot be read; they are dropped', file=sys.stderr)
            files.write(path, ''.join(_line(record) for record in records if record['step'] <= step))
        self.file = open(path if writes else os.devnull, 'ab', buffering=0)  # noqa: SIM115 - open for the whole run
        self.sinks = list(sinks) if writes else []

    def start(self, config: Mapping[str, Any]) -> None:
        """Starts the sinks, with the settings of the run. Raises `UserError` if one cannot start."""
        for index, sink in enumerate(self.sinks):
            try:
                sink.start(self.workdir, config, self.step)
            except Exception as error:  # of a package or a service
                self.sinks = self.sinks[:index]
                self.close(finished=False)
                raise UserError(f'cannot log to {_name(sink)}: {" ".join(str(error).split())}') from error

    def write(self, step: int, values: Mapping[str, float], member: Mapping[str, Any] | None = None) -> None:
        """Records the values of a step. `member` names the member of a population."""
        line = _line({'step': step, **(member or {}), **values}).encode()
        try:
            if self.file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.file.name)) from error
        self.show(step, values, member)

    def show(self, step: int, values: Mapping[str, float], member: Mapping[str, Any] | None = None) -> None:
        """Passes values to the sinks only, such as a learning rate, which follows from the config."""
        self._each(lambda sink: sink.write(step, _finite_values(values, member)))

    def evaluated(self, rows: Iterable[Mapping[str, Any]], scores: Mapping[str, float | None]) -> None:
        """Passes the evaluation after training to the sinks: curves over length, one per member, and scores."""
        curves = []
        for row in rows:
            member = {name: value for name, value in row.items() if name not in ALL_COLUMNS}
            names = [name for name in ALL_COLUMNS if name in row and name not in ('length', 'examples')]
            values = {f'extrapolation/{name}': row[name] for name in names}
            curves.append((int(row['length']), _finite_values(values, member)))
        self._each(lambda sink: sink.evaluated(curves, _finite_values(scores, None)))

    def close(self, finished: bool = True) -> None:
        """Closes the file and the sinks; `finished` is false for a run that diverged or did not start."""
        self.file.close()
        self._each(lambda sink: sink.close(finished))

    def _each(self, call: Callable[[Sink], None]) -> None:
        """Calls all sinks. One that raises an error gets no more calls."""
        for sink in tuple(self.sinks):
            try:
                call(sink)
            except Exception as error:  # of a package or a service: not worth a run
                self.sinks.remove(sink)
                reason = ' '.join(str(error).split())
                print(f'note: the run continues without {_name(sink)}: {reason}', file=sys.stderr)


def _name(sink: Sink) -> str:
    return type(sink).__module__.rpartition('.')[2]


def _finite_values(values: Mapping[str, float | None], member: Mapping[str, Any] | None) -> dict[str, float]:
    """Finite values, under names that contain the member: 'loss/seed=0'."""
    under = ','.join(f'{name}={value}' for name, value in (member or {}).items())
    return {
        f'{name}/{under}' if under else name: value
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    }


def last_step(workdir: Path) -> int:
    """Last step that a run has logged; 0 before the first."""
    records, _ = read(workdir / 'metrics.jsonl')
    return records[-1]['step'] if records else 0


def per_second(count: float | int, seconds: float) -> float:
    """Rate `count / seconds`; NaN if the clock shows no time passed."""
    return count / seconds if seconds > 0 else math.nan


def read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Records of a `metrics.jsonl`, with NaN in place of null, and the number of unreadable lines. An incomplete last
    line, as a crash leaves it, is not counted."""
    records, broken = [], 0
    for line in files.read_text(path, errors='replace').splitlines(keepends=True) if path.exists() else []:
        record = next(fields.checked(files.json_lines(line), fields.TRAINING), {})
        record = {name: math.nan if value is None else value for name, value in record.items()}
        if record and line.endswith('\n') and all(map(fields.NUMBER.holds, record.values())):
            records.append(record)
        else:
            broken += line.endswith('\n')
    return records, broken


def _line(record: Mapping[str, Any]) -> str:
    """Record as a line of JSON. NaN and infinity become null, because JSON has neither."""
    plain = {name: value if math.isfinite(value) else None for name, value in record.items()}
    return json.dumps(plain) + '\n'
