"""TensorBoard, which reads files in the directory of a run: always on."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mha.machine import files
from mha.run.sinks.base import Sink
from mha.spec import flatten


class TensorBoard(Sink):
    """Event files in `<workdir>/tensorboard`: one of this process, and one of all processes before. A resumed run hides
    the events after its checkpoint. Settings appear in the table of hyperparameters, next to loss and accuracy beyond
    the trained lengths, once a run is evaluated."""

    def start(self, workdir, config, step):
        import tensorboardX  # slow to import if torch is installed; errors in the config should show before

        self.config, folder = config, workdir / 'tensorboard'
        _join(folder)
        after = f'.{time.time_ns() % 10**9:09}'  # files of the same second would have the same name
        self.board = tensorboardX.SummaryWriter(str(folder), purge_step=step, flush_secs=1, filename_suffix=after)

    def write(self, step, values):
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def evaluated(self, curves, scores):
        from tensorboardX.summary import hparams

        for summary in hparams(_plain(self.config), dict.fromkeys(('loss', 'extrapolation/accuracy'), 0.0)):
            self.board.file_writer.add_summary(summary)  # pyright: ignore[reportOptionalMemberAccess]
        for length, values in curves:
            self.write(length, values)

    def close(self, finished):
        self.board.close()


def _join(folder: Path) -> None:
    """Makes one file of all event files, in the order of their names, which is that of time."""
    for path in folder.glob('*.tmp'):
        path.unlink()
    paths = sorted(folder.glob('events.*'))
    if len(paths) > 1:
        files.write(paths[0], b''.join(_complete(path.read_bytes()) for path in paths))
        for path in paths[1:]:
            path.unlink()


def _complete(data: bytes) -> bytes:
    """Event file without the incomplete record that a crash may have left at its end. A record is the number of its
    bytes, in 8, then 4 bytes, its bytes, and 4 more."""
    end = 0
    while (after := end + 16 + int.from_bytes(data[end : end + 8], 'little')) <= len(data):
        end = after
    return data[:end]


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key, in the types that TensorBoard knows."""
    flat = {key: value for key, value in flatten(config).items() if value is not None}
    return {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in flat.items()}
