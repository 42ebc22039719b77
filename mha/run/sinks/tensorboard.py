"""TensorBoard, which reads files in the directory of a run: always on."""

from collections.abc import Mapping
from typing import Any

from mha.run.sinks.base import Sink
from mha.spec import flatten


class TensorBoard(Sink):
    """Event files in `<workdir>/tensorboard`. A resumed run hides the events after its checkpoint. Settings appear in
    the table of hyperparameters, next to loss and accuracy beyond the trained lengths, once a run is evaluated."""

    def start(self, workdir, config, step):
        import tensorboardX  # slow to import if torch is installed; errors in the config should show before

        self.config = config
        self.board = tensorboardX.SummaryWriter(str(workdir / 'tensorboard'), purge_step=step, flush_secs=1)

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


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key, in the types that TensorBoard knows."""
    flat = {key: value for key, value in flatten(config).items() if value is not None}
    return {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in flat.items()}
