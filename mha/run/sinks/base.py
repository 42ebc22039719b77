"""Interface of sinks."""

import abc
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mha.spec import UserError

Values = Mapping[str, float]
"""Finite values by name, such as 'loss', or 'loss/seed=0' for a member of a population."""


class Sink(abc.ABC):
    """Place where the metrics of a run are also shown. The files of the run remain the record. A sink that raises an
    error while the run trains is dropped with a note; the run continues."""

    @abc.abstractmethod
    def start(self, workdir: Path, config: Mapping[str, Any], step: int) -> None:
        """Begins to show the run in `workdir`, or continues it after training step `step`."""

    @abc.abstractmethod
    def write(self, step: int, values: Values) -> None:
        """Shows values of a training step."""

    @abc.abstractmethod
    def evaluated(self, curves: Sequence[tuple[int, Values]], scores: Values) -> None:
        """Shows the evaluation after training: values at each length, and scores of the whole run."""

    @abc.abstractmethod
    def close(self, finished: bool) -> None:
        """Ends the display of the run, which has finished or diverged."""


def package(name: str) -> Any:
    """Module of a package that only one sink needs. Raises `UserError` if it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f'--log_to={name}: {error} - pip install ".[sinks]"') from error


def identity(workdir: Path, sink: str, new: Callable[[], str]) -> str:
    """Identity of the run with a service: that of the file `<sink>.id` in its directory, or a `new()` one, which is
    stored there. A resumed run continues what the service shows."""
    path = workdir / f'{sink}.id'
    if not path.exists():
        path.write_text(f'{new()}\n')
    return path.read_text().strip()


def group(workdir: Path) -> str | None:
    """Name of the sweep that the run in `workdir` is a cell of, if any."""
    absolute = workdir.absolute()
    return absolute.parent.parent.name if absolute.parent.name == 'cells' else None
