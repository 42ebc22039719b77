"""Interface of launchers, and the directories of a sweep that they work on."""

import abc
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mha.run import manifest, workdir
from mha.spec import UserError

TRAIN = Path(__file__).parents[3] / 'train.py'


@dataclasses.dataclass(frozen=True)
class Grid:
    """Cells of a sweep. Its directory has their configs (`configs/`), their runs (`cells/`) and the output of their
    processes (`logs/`)."""

    directory: Path
    steps: Mapping[str, int]
    """Number of training steps of each cell, by name."""
    flags: Sequence[str] = ()
    """Flags of train.py that all cells get."""

    def workdir(self, name: str) -> Path:
        return self.directory / 'cells' / name

    def log(self, name: str) -> Path:
        return self.directory / 'logs' / f'{name}.log'

    def command(self, name: str) -> list[str]:
        """Command that trains or resumes a cell, with the config that the sweep saved."""
        config = self.directory / 'configs' / f'{name}.json'
        return [sys.executable, str(TRAIN), f'--config={config}', f'--workdir={self.workdir(name)}', *self.flags]

    def finished(self, name: str) -> bool:
        """Whether a cell is evaluated after as many steps as it should train: a sweep may go on to more."""
        try:
            return workdir.finished(self.workdir(name)) and self._trained_steps(name) >= self.steps[name]
        except UserError:  # a file of the run is broken, which its own process tells
            return False

    def _trained_steps(self, name: str) -> int:
        return workdir.load_config(self.workdir(name))['train']['steps']

    def hopeless(self, name: str, code: int | None) -> bool:
        """Whether a second try would fail, too: the run has diverged, or its config was refused."""
        return code == 2 or workdir.status(self.workdir(name)) == 'diverged'  # train.py ends with 2 on broken files

    def error(self, name: str, lines: int = 3) -> list[str]:
        """Last lines that a cell printed."""
        log = self.log(name)
        return log.read_text(errors='replace').strip().splitlines()[-lines:] if log.exists() else []

    def record_failure(self, name: str, code: int | None, tries: int) -> None:
        """Appends a failed cell to failures.jsonl, with its last lines."""
        manifest.add_failure(self.directory, name, code, tries, self.error(name))


class Launcher(abc.ABC):
    """Runs the cells of a sweep, at most `jobs` at the same time; None leaves the number to the launcher."""

    here = False
    """Whether cells run on this machine and share it."""

    def __init__(self, jobs: int | None):
        self.jobs = jobs

    @abc.abstractmethod
    def run(self, grid: Grid) -> list[str] | None:
        """Runs the unfinished cells and waits for them. Returns the names of those that failed, or None if the launcher
        does not run them itself."""
