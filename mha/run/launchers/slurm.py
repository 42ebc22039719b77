"""Cells as jobs of a Slurm cluster, submitted as one array by submitit (pip install 'mha[slurm]')."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from mha.arguments import Count, Shift
from mha.machine import parallel
from mha.run import log
from mha.run.launchers.base import Grid, Launcher
from mha.spec import UserError

try:
    import submitit
    from submitit.core.utils import FailedJobError
except ImportError as error:
    raise UserError("--cluster=slurm needs submitit - pip install 'mha[slurm]'") from error

EVERY = 2.0
"""Seconds between two checks of the queue."""
GRACE = 3
"""Number of checks that miss a job in the queue before its cell counts as failed: shared file systems lag behind."""


class Slurm(Launcher):
    """Runs each cell as a job. A job that reaches its time limit or is preempted is queued again, and its cell resumes
    from the last checkpoint. Per job: `timeout` in minutes, `memory` in GB, `cpus`, `gpus`; `grace` is the number of
    seconds before the time limit at which Slurm tells the job to end."""

    def __init__(
        self,
        jobs: int | None,
        partition: str = '',
        timeout: Count = 240,
        cpus: Count = 2,
        gpus: Shift = 0,
        memory: Shift = 0,
        account: str = '',
        qos: str = '',
        constraint: str = '',
        grace: Count = 90,
    ):
        super().__init__(jobs)
        if grace >= 60 * timeout:
            raise ValueError(f'grace={grace} seconds must be less than timeout={timeout} minutes')
        named = dict(partition=partition, account=account, qos=qos, constraint=constraint, array_parallelism=jobs)
        self.options = {
            'name': 'mha',
            'timeout_min': timeout,
            'cpus_per_task': cpus,
            'slurm_signal_delay_s': grace,
            **({'gpus_per_node': gpus} if gpus else {}),
            **({'mem_gb': memory} if memory else {}),
            **{f'slurm_{name}': value for name, value in named.items() if value},
        }

    def run(self, grid: Grid) -> list[str]:
        jobs = _submitted(grid.directory)
        queue = _queue()
        while any(queue.get(job) == 'COMPLETING' for job in jobs.values()):
            time.sleep(EVERY)  # a cancelled job then leaves the queue, one that is queued again waits in it
            queue = _queue()
        todo = [name for name in grid.steps if not grid.finished(name) and jobs.get(name) not in queue]
        if todo:
            jobs |= self._submit(grid, todo)
        waiting = [name for name in grid.steps if not grid.finished(name)]
        missing = dict.fromkeys(waiting, 0)
        failed: list[str] = []
        total = sum(grid.steps.values())
        with parallel.progress(total=total, unit=' steps', initial=_steps(grid)) as bar:
            while waiting:
                time.sleep(EVERY)
                queue = _queue()
                for name in list(waiting):
                    missing[name] = 0 if jobs[name] in queue else missing[name] + 1
                    if grid.finished(name):
                        waiting.remove(name)
                        bar.write(f'{name}: finished')
                    elif missing[name] > GRACE:
                        waiting.remove(name)
                        failed.append(name)
                        grid.record_failure(name, None, 1)
                        lines = '\n  '.join(grid.error(name))
                        bar.write(f'{name}: failed, see {grid.log(name)} and {grid.directory}/slurm\n  {lines}')
                states = [queue[jobs[name]] for name in waiting if jobs[name] in queue]
                counted = ', '.join(f'{states.count(state)} {state.lower()}' for state in dict.fromkeys(states))
                lost = f', {len(failed)} failed' if failed else ''
                done = len(grid.steps) - len(waiting) - len(failed)
                bar.set_description(f'{done}/{len(grid.steps)} cells{lost}', refresh=False)
                bar.set_postfix_str(counted, refresh=False)
                bar.n = _steps(grid)
                bar.refresh()
        return failed

    def _submit(self, grid: Grid, names: list[str]) -> dict[str, str]:
        """Submits cells as one array and returns their job ids, which are kept in jobs.jsonl."""
        root = str(Path(__file__).parents[3])
        os.environ['PYTHONPATH'] = os.pathsep.join([root, *filter(None, [os.environ.get('PYTHONPATH')])])
        executor = submitit.AutoExecutor(grid.directory / 'slurm', cluster='slurm', slurm_max_num_timeout=10_000)
        executor.update_parameters(**self.options)
        try:
            commands = [grid.command(name) for name in names]
            jobs = executor.map_array(Cell(), commands, [str(grid.log(name)) for name in names])
        except (RuntimeError, subprocess.CalledProcessError, FailedJobError) as error:
            raise UserError(f'Slurm takes no job: {" ".join(str(error).split())[-300:]}') from error
        found = {name: job.job_id for name, job in zip(names, jobs, strict=True)}
        with open(grid.directory / 'jobs.jsonl', 'a') as file:
            file.writelines(json.dumps({'cell': name, 'job': job}) + '\n' for name, job in found.items())
        return found


class Cell(submitit.helpers.Checkpointable):
    """Process of a cell, inside a job. Queued again, it runs the same command, which resumes."""

    def __call__(self, command: list[str], output: str) -> None:
        environ = {**os.environ, 'JAX_NUM_PROCESSES': '1'}  # cells must not join each other
        for tries in (1, 2):
            with open(output, 'a') as file:
                # Slurm signals all processes of a job near its time limit; only this one reacts.
                done = subprocess.run(command, env=environ, stdout=file, stderr=file, preexec_fn=_ignore_signal)
            if done.returncode == 0:
                return
            print(f'exit code {done.returncode} of try {tries}, see {output}', flush=True)
            if done.returncode in (2, 128 + signal.SIGTERM):  # refused, or told to end
                break
        raise SystemExit(1)


def _ignore_signal() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _steps(grid: Grid) -> int:
    """Number of steps that all cells have logged so far."""
    return sum(min(log.last_step(grid.workdir(name)), steps) for name, steps in grid.steps.items())


def _submitted(directory: Path) -> dict[str, str]:
    """Id of the last job of each cell."""
    path = directory / 'jobs.jsonl'
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {record['cell']: record['job'] for record in records}


def _queue() -> dict[str, str]:
    """States of the user's jobs that wait or run, by id."""
    command = ['squeue', '--me', '--noheader', '--array', '--format=%i %T']
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise UserError('there is no Slurm here (no squeue) - choose --cluster=local, or commands') from error
    if done.returncode:
        raise UserError(f'Slurm does not answer: {" ".join(done.stderr.split())}')
    return dict(line.split() for line in done.stdout.splitlines())
