"""Runs every cell of a config's `sweep()`.

    python sweep.py --config=configs/quickstart.py --workdir=runs/grid [--jobs=2] [--dry_run]

The same command again skips finished cells and resumes interrupted ones. Further `--config.x=y` apply to every cell.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags
from tqdm import tqdm

from mha import cli
from mha.machine import parallel
from mha.run import checks, experiment, workdir
from mha.run import log as metrics
from mha.spec import UserError

CONFIG = config_flags.DEFINE_config_file('config', None, 'The experiment: configs/<name>.py with a sweep().')
WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of the sweep; its runs go to cells/.')
JOBS = flags.DEFINE_integer('jobs', 1, 'Cells to run at a time; the cores are shared out among them.', lower_bound=1)
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Only print the commands.')

TRAIN = Path(__file__).with_name('train.py')


def main() -> None:
    config = cli.required('config', CONFIG.value)
    grid = cli.directory('workdir', WORKDIR.value)
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # of a GPU, that this process and all cells use
    if config.mesh.data or config.mesh.model > 1:  # else one device will do to check the cells
        parallel.use_cores(checks.at_once(config.train.to_dict()))
    cells = {}
    for overrides in _sweep():
        name = cell_name(overrides)
        if name in cells:
            raise UserError(f'sweep() yields two cells called {name!r}')
        cells[name] = overrides
        # A mistake in the last cell should not wait until the others have run.
        cell = _with_overrides(config, overrides).to_dict()
        try:
            experiment.Experiment.build(cell)
        except UserError as error:
            raise UserError(f'cell {name}: {error}') from error
        workdir.check_same(grid / 'cells' / name, cell)
    if not cells:
        raise UserError(f'{_config_path()} yields no cells in sweep()')
    commands = {name: _command(grid / 'cells' / name, overrides) for name, overrides in cells.items()}
    if DRY_RUN.value:
        print('\n'.join(shlex.join(command) for command in commands.values()))
        return
    if grid.exists() and any(grid.iterdir()) and not (grid / 'manifest.jsonl').exists():
        raise UserError(f'{grid} is not empty and holds no sweep - choose another --workdir')
    (grid / 'logs').mkdir(parents=True, exist_ok=True)
    _add_to_manifest(grid / 'manifest.jsonl', cells)
    failed = run_all(grid, commands, config.train.steps, JOBS.value)
    if failed:
        raise SystemExit(f'{len(failed)} of {len(cells)} cells failed; the same command tries them again')
    print(f'all {len(cells)} cells are finished; now: python compare.py {grid}')


def run_all(grid: Path, commands: Mapping[str, list[str]], steps: int, jobs: int) -> list[str]:
    """Runs the cells that are not finished, `jobs` at a time; returns those that failed."""
    todo = [name for name in commands if not workdir.finished(grid / 'cells' / name)]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
    slots = list(range(jobs))
    running: dict[str, tuple[subprocess.Popen, int, float]] = {}
    failed, done = [], len(commands) - len(todo)
    bar = tqdm(total=len(commands) * steps, unit=' steps', desc=f'{done}/{len(commands)} cells', dynamic_ncols=True)
    try:
        while todo or running:
            while todo and slots:
                name, slot = todo.pop(0), slots.pop(0)
                alone = {**os.environ, 'JAX_NUM_PROCESSES': '1'}  # cells do not join each other, in a Slurm step either
                with open(grid / 'logs' / f'{name}.log', 'a') as log:
                    process = subprocess.Popen(commands[name], stdout=log, stderr=subprocess.STDOUT, env=alone)
                if jobs > 1 and len(cores) >= jobs:
                    os.sched_setaffinity(process.pid, cores[slot::jobs])
                running[name] = (process, slot, time.time())
            time.sleep(0.3)
            for name, (process, slot, started) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                slots.append(slot)
                done += 1
                if process.returncode:
                    failed.append(name)
                    bar.write(f'{name}: failed, see {grid / "logs" / name}.log\n  {_last_line(grid, name)}')
                else:
                    score = json.loads((grid / 'cells' / name / 'summary.json').read_text())['score']
                    shown = 'no length beyond the trained ones' if score is None else f'score {score:.3f}'
                    bar.write(f'{name}: {shown}, {time.time() - started:.0f} s')
                bar.set_description(f'{done}/{len(commands)} cells')
            bar.n = done * steps + sum(metrics.last_step(grid / 'cells' / name) for name in running)
            bar.refresh()
    finally:
        for process, *_ in running.values():
            process.terminate()
            process.wait()
        bar.close()
    return failed


def cell_name(overrides: Mapping[str, Any]) -> str:
    """`{'model.position': 'rope', 'seed': 0}` -> `'position=rope,seed=0'`, fit for a directory."""
    return workdir.file_name(','.join(f'{key.rpartition(".")[2]}={value}' for key, value in overrides.items()))


def _config_path() -> str:
    return getattr(flags.FLAGS['config'], 'config_filename')  # noqa: B009 - absl does not know this kind of flag


def _sweep() -> list[dict[str, Any]]:
    path = _config_path().partition(':')[0]
    module = cli.load(Path(path))
    if 'sweep' not in module:
        raise UserError(f'{path} has no sweep() - add a generator of overrides such as {{"model.heads": 4}}')
    try:
        cells = list(module['sweep']())
    except Exception as error:  # whatever its author got wrong
        raise UserError(f'sweep() of {path} fails: {type(error).__name__}: {cli.one_line(error)}') from error
    for cell in cells:
        if not isinstance(cell, dict):
            raise UserError(f'sweep() of {path} must yield dicts such as {{"model.heads": 4}}, not {cell!r}')
        if missing := [key for key, value in cell.items() if value is None]:
            raise UserError(f'sweep() of {path} yields {missing[0]!r}: None - leave the key out instead')
    return [{key: tuple(v) if isinstance(v, range) else v for key, v in cell.items()} for cell in cells]


def _with_overrides(config: Any, overrides: Mapping[str, Any]) -> Any:
    config = config.copy_and_resolve_references()
    try:
        config.update_from_flattened_dict(overrides)
    except (KeyError, TypeError, AttributeError) as error:
        reason = cli.one_line(error.args[0])
        raise UserError(f'sweep() of {_config_path()} yields {dict(overrides)}: {reason}') from error
    return config


def _command(directory: Path, overrides: Mapping[str, Any]) -> list[str]:
    common = [argument for argument in sys.argv[1:] if re.match(r'--?config[.=]', argument)]
    cell = [f'--config.{key}={value}' for key, value in overrides.items()]
    return [sys.executable, str(TRAIN), *common, *cell, f'--workdir={directory}']


def _add_to_manifest(path: Path, cells: Mapping[str, Mapping[str, Any]]) -> None:
    known = {json.loads(line)['cell'] for line in path.read_text().splitlines()} if path.exists() else set()
    with open(path, 'a') as file:
        for name, overrides in cells.items():
            if name not in known:
                file.write(json.dumps({'cell': name, 'config': _config_path(), 'overrides': overrides}) + '\n')


def _last_line(grid: Path, name: str) -> str:
    lines = (grid / 'logs' / f'{name}.log').read_text().strip().splitlines()
    return lines[-1] if lines else ''


if __name__ == '__main__':
    cli.run(main)
