"""Commands of all unfinished cells, one per line, for other schedulers."""

import shlex

from mha.run.launchers.base import Grid, Launcher


class Commands(Launcher):
    """Prints one command per cell, which trains or resumes it."""

    def run(self, grid: Grid) -> None:
        for name in grid.steps:
            if not grid.finished(name):
                print(shlex.join(grid.command(name)))
