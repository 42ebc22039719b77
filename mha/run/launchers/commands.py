"""Commands of the cells that are not finished, a line each, for any other scheduler."""

import shlex

from mha.run.launchers.base import Grid, Launcher


class Commands(Launcher):
    """Prints one command per cell; the same command resumes it."""

    def run(self, grid: Grid) -> None:
        for name in grid.steps:
            if not grid.finished(name):
                print(shlex.join(grid.command(name)))
