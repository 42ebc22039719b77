"""What a launcher is given, the cells of a sweep as folders, and what it must do."""

import abc
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from mha.run import workdir

TRAIN = Path(__file__).parents[3] / 'train.py'


@dataclasses.dataclass(frozen=True)
class Grid:
    """The cells of a sweep below its directory: `configs/` says what they train, `cells/` has their runs and `logs/`
    what these print."""

    directory: Path
    steps: Mapping[str, int]
    """Training steps of each cell, by its name."""

    def workdir(self, name: str) -> Path:
        return self.directory / 'cells' / name

    def log(self, name: str) -> Path:
        return self.directory / 'logs' / f'{name}.log'

    def command(self, name: str) -> list[str]:
        """The command that trains a cell as the config file was when the sweep began; the same one resumes it."""
        config = self.directory / 'configs' / f'{name}.json'
        return [sys.executable, str(TRAIN), f'--config={config}', f'--workdir={self.workdir(name)}']

    def finished(self, name: str) -> bool:
        return workdir.finished(self.workdir(name)) and self._steps_done(name)

    def _steps_done(self, name: str) -> bool:
        """Whether it was trained for as many steps as it should be: a sweep may go on to more."""
        return workdir.load_config(self.workdir(name))['train']['steps'] >= self.steps[name]

    def hopeless(self, name: str, code: int | None) -> bool:
        """Whether another try would end like this one: the run diverged, or its config is refused."""
        return code == 2 or workdir.status(self.workdir(name)) == 'diverged'

    def error(self, name: str, lines: int = 3) -> list[str]:
        """The last lines that a cell printed."""
        log = self.log(name)
        return log.read_text(errors='replace').strip().splitlines()[-lines:] if log.exists() else []

    def record_failure(self, name: str, code: int | None, tries: int) -> None:
        """Marks a cell as failed in failures.jsonl, with its last lines."""
        failure = {'cell': name, 'exit_code': code, 'tries': tries, 'error': self.error(name)}
        with open(self.directory / 'failures.jsonl', 'a') as file:
            file.write(json.dumps(failure) + '\n')


class Launcher(abc.ABC):
    """Runs the cells of a sweep, `jobs` at a time; None: as many as it sees fit."""

    def __init__(self, jobs: int | None):
        self.jobs = jobs

    @abc.abstractmethod
    def run(self, grid: Grid) -> list[str] | None:
        """Runs the cells that are not finished, and waits for them; returns the names of those that failed, or None if
        it leaves the cells to somebody else."""
