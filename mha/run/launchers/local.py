"""Cells as processes on this machine."""

import collections
import contextlib
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mha.machine import parallel
from mha.run import log, workdir
from mha.run.launchers.base import Grid, Launcher

TRIES = 2
"""Number of starts of a cell before it counts as failed."""
MODULES = (
    *('mha.cli', 'mha.run.build', 'mha.run.checkpoint', 'mha.run.finished', 'mha.run.log', 'mha.views.report.plots'),
    *('ml_collections.config_flags', 'scipy.optimize', 'tensorboardX'),
)
"""Modules that a training run imports. None of them computes with jax, after which a process must not fork."""
EVERY = 0.3
"""Seconds between two checks of the cells."""


@dataclasses.dataclass
class Running:
    """Running cell: in a process of this launcher, or in one that a killed launcher left behind."""

    slot: int
    bar: Any
    ours: bool
    started: float = dataclasses.field(default_factory=time.monotonic)
    code: int | None = None
    """Exit code of the process; None until it has ended."""


class Local(Launcher):
    """Runs each cell as a process, by default one at a time. Processes share the cores; on a machine with GPUs each
    uses one of them, several the same one if there are more processes than GPUs. A failed cell is tried once more."""

    here = True

    def run(self, grid: Grid) -> list[str]:
        waiting = collections.deque(name for name in grid.steps if not grid.finished(name))
        if not waiting:
            return []
        tries: collections.Counter[str] = collections.Counter()
        running: dict[str, Running] = {}
        failed: list[str] = []
        jobs = self.jobs or 1
        slots, shares, total = sorted(range(jobs), reverse=True), Shares(jobs), sum(grid.steps.values())
        done = {name: steps for name, steps in grid.steps.items() if name not in waiting}
        begun = sum(done.values()) + sum(log.last_step(grid.workdir(name)) for name in waiting)
        with (
            Warm() as warm,
            parallel.progress(total=total, initial=begun, unit=' steps', position=0) as bar,
        ):
            while waiting or running:
                while waiting and slots:
                    name, slot = waiting.popleft(), slots.pop()
                    ours = not workdir.held(grid.workdir(name))
                    own_bar = _bar(grid, name, 1 + slot)
                    running[name] = Running(slot, own_bar, ours)
                    if ours:
                        tries[name] += 1
                        warm.start(name, grid.command(name), grid.log(name), *shares.of(slot))
                    else:
                        bar.write(f'{name}: goes on in the process of an earlier launcher')
                time.sleep(EVERY)
                warm.look(running)
                for name, cell in list(running.items()):
                    cell.bar.n = log.last_step(grid.workdir(name))
                    cell.bar.refresh()
                    if cell.code is None and (cell.ours or workdir.held(grid.workdir(name))):
                        continue
                    del running[name]
                    cell.bar.close()
                    slots.append(cell.slot)
                    if grid.finished(name):
                        done[name] = grid.steps[name]
                        bar.write(f'{name}: {_score(grid, name)}, {time.monotonic() - cell.started:.0f} s')
                    elif workdir.held(grid.workdir(name)):  # an earlier launcher had started it, too
                        tries[name] -= 1
                        waiting.append(name)
                    elif tries[name] < TRIES and not grid.hopeless(name, cell.code):
                        if cell.ours:
                            bar.write(f'{name}: failed, is tried again\n  {" ".join(grid.error(name, 1))}')
                        waiting.append(name)
                    else:
                        failed.append(name)
                        grid.record_failure(name, cell.code, tries[name])
                        lines = '\n  '.join(grid.error(name))
                        bar.write(f'{name}: failed, see {grid.log(name)}\n  {lines}')
                lost = f', {len(failed)} failed' if failed else ''
                bar.set_description(f'{len(done)}/{len(grid.steps)} cells{lost}', refresh=False)
                bar.n = sum(done.values()) + sum(cell.bar.n for cell in running.values())
                bar.refresh()
        return failed


def _bar(grid: Grid, name: str, position: int) -> Any:
    """Progress bar of one cell, below that of the sweep; shown on terminals only."""
    label = name if len(name) <= 40 else f'{name[:39]}…'
    options = dict(unit=' steps', position=position, leave=False)
    return parallel.progress(sys.stderr.isatty(), total=grid.steps[name], desc=f'  {label}', **options)


def _score(grid: Grid, name: str) -> str:
    """Score of a finished cell, or its mean at trained lengths if no length is beyond them."""
    score, inside = map(workdir.summary(grid.workdir(name)).get, ('score', 'in_range'))
    if score is not None:
        return f'score {score:.3f}'
    return 'no result' if inside is None else f'{inside:.3f} at trained lengths'


class Shares:
    """Share of the machine for each of `jobs` processes: cores, a GPU and a part of its memory."""

    def __init__(self, jobs: int):
        self.jobs = jobs
        self.cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
        self.gpus = gpus()

    def of(self, slot: int) -> tuple[dict[str, str], list[int]]:
        """Environment variables and cores of a process; no cores where it may use all of them."""
        environ = {'JAX_NUM_PROCESSES': '1'}  # cells must not join each other, as processes of a Slurm step would
        if self.jobs > 1 and self.gpus:
            environ['CUDA_VISIBLE_DEVICES'] = self.gpus[slot % len(self.gpus)]
            beside = -(-self.jobs // len(self.gpus))
            environ['XLA_PYTHON_CLIENT_MEM_FRACTION'] = f'{0.9 / beside:.3f}'
        shared = self.jobs > 1 and len(self.cores) >= self.jobs
        return environ, self.cores[slot :: self.jobs] if shared else []


def gpus() -> list[str]:
    """NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (visible := os.environ.get('CUDA_VISIBLE_DEVICES')) is not None:
        return [name for name in visible.split(',') if name]
    with contextlib.suppress(OSError):
        listed = subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True).stdout
        return [str(number) for number in range(sum(line.startswith('GPU') for line in listed.splitlines()))]
    return []


class Warm:
    """Process that starts cells (`_warm.py`). If it dies, it is started again, and so are its cells."""

    def __enter__(self) -> 'Warm':
        root = str(Path(__file__).parents[3])
        paths = [root, *filter(None, [os.environ.get('PYTHONPATH')])]
        self.process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-m', 'mha.run.launchers._warm', *MODULES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
        )
        self.answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.pids: dict[str, int] = {}
        threading.Thread(target=self._listen, args=(self.process, self.answers), daemon=True).start()
        return self

    @staticmethod
    def _listen(process: subprocess.Popen[str], answers: queue.SimpleQueue[dict[str, Any] | None]) -> None:
        for line in process.stdout or ():
            answers.put(json.loads(line))
        answers.put(None)

    def start(self, name: str, command: list[str], output: Path, environ: dict[str, str], cores: list[int]) -> None:
        self._send(dict(cell=name, argv=command[1:], log=str(output), environ=environ, cores=cores))

    def _send(self, order: dict[str, Any]) -> None:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # the process has died, which `look` finds
            self.process.stdin.write(json.dumps(order) + '\n')
            self.process.stdin.flush()

    def look(self, running: dict[str, Running]) -> None:
        """Sets the exit codes of the cells that have ended."""
        for answer in self._answers():
            if answer is None:
                for name, cell in running.items():
                    if cell.ours and cell.code is None:
                        self._kill(name)
                        cell.code = -9
                self.__enter__()
            elif 'pid' in answer:
                self.pids[answer['cell']] = answer['pid']
            else:
                self.pids.pop(answer['cell'], None)
                running[answer['cell']].code = answer['code']

    def _answers(self) -> Iterator[dict[str, Any] | None]:
        while not self.answers.empty():
            yield self.answers.get()

    def _kill(self, name: str) -> None:
        with contextlib.suppress(OSError, KeyError):
            os.kill(self.pids.pop(name), 9)

    def __exit__(self, *error: object) -> None:
        self._send({'stop': True})
        self.process.terminate()  # which it ignores once it has started cells
        self.process.wait()
