"""Training metrics of a run: `metrics.jsonl` is the record, TensorBoard files are for viewing. If several processes
train, only the first writes them."""

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mha.machine import parallel
from mha.spec import flatten
from mha.training.metrics import COLUMNS


class Metrics:
    """Writer of training metrics: one JSON object per log step and member. A resumed run first drops the records after
    its checkpoint, because those steps are repeated."""

    def __init__(self, workdir: Path, step: int):
        import tensorboardX  # slow to import if torch is installed; errors in the config should show before

        path, writes = workdir / 'metrics.jsonl', parallel.first()
        if writes:
            records, broken = read(path)
            if broken:
                print(f'note: {path} had {broken} lines that cannot be read; they are dropped', file=sys.stderr)
            temporary = path.with_suffix('.tmp')
            temporary.write_text(''.join(_line(record) for record in records if record['step'] <= step))
            os.replace(temporary, path)
        self.file = open(path if writes else os.devnull, 'a')  # noqa: SIM115 - open for the whole run
        self.board = tensorboardX.SummaryWriter(
            str(workdir / 'tensorboard'), purge_step=step, flush_secs=1, write_to_disk=writes
        )

    def write(self, step: int, values: Mapping[str, float], member: Mapping[str, Any] | None = None) -> None:
        """Records the values of a step. `member` names the member of a population."""
        self.file.write(_line({'step': step, **(member or {}), **values}))
        self.file.flush()
        self.show(step, values, member)

    def show(self, step: int, values: Mapping[str, float], member: Mapping[str, Any] | None = None) -> None:
        """Writes values to TensorBoard only, such as a learning rate, which follows from the config."""
        under = ','.join(f'{name}={value}' for name, value in (member or {}).items())
        for name, value in values.items():
            if math.isfinite(value):
                self.board.add_scalar(f'{name}/{under}' if under else name, value, step)

    def hyperparameters(self, config: Mapping[str, Any]) -> None:
        """Adds the config, a nested dict, to TensorBoard's table of hyperparameters, next to loss and accuracy beyond
        the trained lengths."""
        from tensorboardX.summary import hparams

        flat = {key: value for key, value in flatten(config).items() if value is not None}
        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in flat.items()
        }
        for summary in hparams(plain, dict.fromkeys(('loss', 'extrapolation/accuracy'), 0.0)):
            self.board.file_writer.add_summary(summary)  # pyright: ignore[reportOptionalMemberAccess]

    def evaluated(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds the rows of a range evaluation to TensorBoard, as curves over length, one per member."""
        for row in rows:
            member = {name: value for name, value in row.items() if name not in COLUMNS}
            for name in (column for column in COLUMNS if column not in ('length', 'examples')):
                self.show(int(row['length']), {f'extrapolation/{name}': row[name]}, member)

    def close(self) -> None:
        self.file.close()
        self.board.close()


def last_step(workdir: Path) -> int:
    """Last step that a run has logged; 0 before the first."""
    records, _ = read(workdir / 'metrics.jsonl')
    return records[-1]['step'] if records else 0


def per_second(count: int, seconds: float) -> float:
    """Rate `count / seconds`; NaN if the clock shows no time passed."""
    return count / seconds if seconds > 0 else math.nan


def read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Records of a `metrics.jsonl`, with NaN in place of null, and the number of unreadable lines. An incomplete last
    line, as a crash leaves it, is not counted."""
    records, broken = [], 0
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        try:
            record = json.loads(line)
            complete = line.endswith(b'\n') and isinstance(record['step'], int)
        except (ValueError, KeyError, TypeError):
            complete = False
        if complete:
            records.append({name: math.nan if value is None else value for name, value in record.items()})
        else:
            broken += line.endswith(b'\n')
    return records, broken


def _line(record: Mapping[str, Any]) -> str:
    """Record as a line of JSON. NaN and infinity become null, because JSON has neither."""
    plain = {name: value if math.isfinite(value) else None for name, value in record.items()}
    return json.dumps(plain) + '\n'
