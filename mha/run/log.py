"""Training metrics: `metrics.jsonl` is the record, TensorBoard events are for looking. Of several processes
the first alone writes."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mha.machine import parallel


class Metrics:
    """Appends one object per log step, and member. A resumed run drops what was logged after its checkpoint: it comes
    again."""

    def __init__(self, workdir: Path, step: int):
        import tensorboardX  # loads torch where there is one: seconds that a mistake need not wait for

        path, writes = workdir / 'metrics.jsonl', parallel.first()
        if writes:
            kept = [line for line in _lines(path) if json.loads(line)['step'] <= step]
            temporary = path.with_suffix('.tmp')
            temporary.write_text(''.join(f'{line}\n' for line in kept))
            os.replace(temporary, path)
        self.file = open(path if writes else os.devnull, 'a')  # noqa: SIM115 - open for the whole run
        self.board = tensorboardX.SummaryWriter(
            str(workdir / 'tensorboard'), purge_step=step, flush_secs=1, write_to_disk=writes
        )

    def write(self, step: int, values: Mapping[str, float], member: Mapping[str, float] | None = None) -> None:
        """`member` says whose they are, in a population."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}  # JSON has no NaN
        self.file.write(json.dumps({'step': step, **(member or {}), **finite}) + '\n')
        self.file.flush()
        under = ','.join(f'{name}={value}' for name, value in (member or {}).items())
        for name, value in values.items():
            if math.isfinite(value):
                self.board.add_scalar(f'{name}/{under}' if under else name, value, step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Further curves for TensorBoard alone."""
        for name, value in values.items():
            if math.isfinite(value):
                self.board.add_scalar(name, value, step)

    def evaluated(self, rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any], score: float | None) -> None:
        """TensorBoard's curves over lengths, mean of all members, and the config as hyper-parameters with the score."""
        for length in sorted({row['length'] for row in rows}):
            here = [row for row in rows if row['length'] == length]
            for name in ('accuracy', 'exact_match', 'loss', 'baseline'):
                self.scalars({f'extrapolation/{name}': sum(row[name] for row in here) / len(here)}, int(length))
        plain = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in config.items()}
        self.board.add_hparams(plain, {'score': math.nan if score is None else score}, name='hyperparameters')

    def close(self) -> None:
        self.file.close()
        self.board.close()


def last_step(workdir: Path) -> int:
    """The newest step that the run there has logged; 0 before the first."""
    lines = _lines(workdir / 'metrics.jsonl')
    return json.loads(lines[-1])['step'] if lines else 0


def _lines(path: Path) -> list[str]:
    """The complete lines: a crash can leave half of the last one."""
    return [line[:-1] for line in path.open() if line.endswith('\n')] if path.exists() else []
