"""Runs every cell of a config's `sweep()`.

    python sweep.py --config=configs/quickstart.py --workdir=runs/grid [--jobs=2] [--dry_run]

The same command, run again, skips finished cells and resumes interrupted ones. Flags `--config.x=y` apply to all cells.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from configs import common
from mha import cli, spec
from mha.machine import parallel
from mha.run import checks, workdir
from mha.run import log as metrics
from mha.run.build import build
from mha.spec import UserError

CONFIG = config_flags.DEFINE_config_file('config', None, 'Experiment: configs/<name>.py with a sweep().')
WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of the sweep; its runs go to cells/.')
JOBS = flags.DEFINE_integer(
    'jobs', 1, 'Number of cells to run at a time; each gets a share of the cores.', lower_bound=1
)
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Print the commands without running them.')

Overrides = Mapping[str, Any]
TRAIN = Path(__file__).with_name('train.py')


def main() -> None:
    config = cli.required('config', CONFIG.value)
    grid = cli.path('workdir', WORKDIR.value)
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # all cells share the memory of a GPU
    if config.mesh.data or config.mesh.model > 1:  # otherwise one device is enough to check the cells
        parallel.use_cores(checks.at_once(config.train.to_dict()))
    manifest = _read_manifest(grid / 'manifest.jsonl')
    cells = named(_sweep(config), manifest)
    configs = {name: _with_overrides(overrides).to_dict() for name, overrides in cells.items()}
    for name, cell in configs.items():  # so that a mistake in the last cell shows before the others run
        try:
            build(cell)
        except UserError as error:
            raise UserError(f'cell {name}: {error}') from error
        workdir.check_same(grid / 'cells' / name, cell)
    if DRY_RUN.value:
        print('\n'.join(shlex.join(_dry_command(grid / 'cells' / name, cells[name])) for name in cells))
        return
    if grid.exists() and any(path.name != 'lock' for path in grid.iterdir()) and not manifest:
        raise UserError(f'{grid} is not empty and holds no sweep - choose another --workdir')
    for folder in 'logs', 'configs':
        (grid / folder).mkdir(parents=True, exist_ok=True)
    workdir.hold(grid)
    for name in cells:  # cells of a killed sweep may still be running
        workdir.check_unused(grid / 'cells' / name)
    commands = {name: _command(grid, name) for name in cells}
    for name, cell in configs.items():  # the config file may change before the last cell starts
        workdir.write_json(grid / 'configs' / f'{name}.json', cell)
    with open(grid / 'manifest.jsonl', 'a') as file:
        for name, overrides in cells.items():
            if name not in manifest:
                file.write(json.dumps({'cell': name, 'config': _config_text(), 'overrides': overrides}) + '\n')
    failed = run_all(grid, commands, config.train.steps, JOBS.value)
    if failed:
        raise SystemExit(f'{len(failed)} of {len(cells)} cells failed; the same command tries them again')
    print(f'all {len(cells)} cells are finished; now: python compare.py {grid}')


def run_all(grid: Path, commands: Mapping[str, list[str]], steps: int, jobs: int) -> list[str]:
    """Runs the unfinished cells, `jobs` at a time, and returns the names of those that failed."""
    todo = [name for name in commands if not workdir.finished(grid / 'cells' / name)]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
    slots = list(range(jobs))
    running: dict[str, tuple[subprocess.Popen, int, float]] = {}
    failed, done = [], len(commands) - len(todo)
    bar = parallel.progress(total=len(commands) * steps, unit=' steps', desc=f'{done}/{len(commands)} cells')
    try:
        while todo or running:
            while todo and slots:
                name, slot = todo.pop(0), slots.pop(0)
                alone = {
                    **os.environ,
                    'JAX_NUM_PROCESSES': '1',
                }  # cells must not join each other, as processes of a Slurm step would
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


def named(cells: Sequence[Overrides], known: Mapping[str, Overrides]) -> dict[str, Overrides]:
    """Cells by their names, which are also names of directories: the name in the manifest `known`, or else a name such
    as `'position=rope,seed=0'` for `{'model.position': 'rope', 'seed': 0}`. Keys are shortened as far as they stay
    different. Names that are too long, or equal, end in a hash."""
    keys = {key for cell in cells for key in cell}
    plain = [json.loads(json.dumps(cell)) for cell in cells]
    names = [
        next((name for name, there in known.items() if there == cell), None)
        or workdir.file_name(','.join(f'{_shortest(key, keys)}={value}' for key, value in overrides.items()))
        for overrides, cell in zip(cells, plain, strict=True)
    ]
    found: dict[str, Overrides] = {}
    for name, cell, overrides in zip(names, plain, cells, strict=True):
        if plain.count(cell) > 1:
            raise UserError(f'sweep() yields two cells called {name!r}')
        if known.get(name) != cell and (names.count(name) > 1 or name in known):
            name = workdir.hashed(','.join(f'{key}={value!r}' for key, value in overrides.items()))
        found[name] = overrides
    return found


def _shortest(key: str, keys: Iterable[str]) -> str:
    """Shortest end of a key, in whole parts, that no other of the `keys` has."""
    parts = key.split('.')
    ends = ('.'.join(parts[start:]) for start in range(len(parts) - 1, -1, -1))
    unique = (end for end in ends if not any(f'.{other}'.endswith(f'.{end}') for other in keys if other != key))
    return next(unique, key)


def _config_text() -> str:
    return getattr(flags.FLAGS['config'], 'config_filename')  # noqa: B009 - absl does not know this kind of flag


def _given() -> dict[str, Any]:
    """Settings on the command line, which apply to every cell."""
    return getattr(flags.FLAGS['config'], 'override_values')  # noqa: B009


def _sweep(config: Any) -> list[dict[str, Any]]:
    """Overrides of every cell, checked."""
    text, keys = _config_text(), spec.flatten(config.to_dict())
    file, _ = cli.config_file(text)
    if file.suffix == '.json' or 'sweep' not in cli.load(file):
        raise UserError(f'{file} has no sweep() - add a generator of overrides such as {{"model.heads": 4}}')
    cells = cli.call(text, 'sweep')
    if not isinstance(cells, list | tuple) or not cells:
        raise UserError(f'{file} yields no cells in sweep()')
    for cell in cells:
        wrong = f'sweep() of {file} yields {cell!r}'
        if not isinstance(cell, dict):
            raise UserError(f'sweep() of {file} must yield dicts such as {{"model.heads": 4}}, not {cell!r}')
        if not cell:
            raise UserError(f'{wrong}, which sets nothing - name at least one key, such as {{"seed": 0}}')
        for key, value in cell.items():
            if isinstance(value, dict):
                inner = next(iter(value), 'key')
                raise UserError(f'{wrong} - write nested keys with dots, such as {{"{key}.{inner}": ..}}')
            if key not in keys:
                raise UserError(f'{wrong}: no key {key!r}{cli.near(str(key), keys)}')
            if value is None:
                raise UserError(f'sweep() of {file} yields {key!r}: None - leave the key out instead')
            if key in _given():
                raise UserError(f'--config.{key} is set by sweep() of {file} in its cells - leave the flag out')
    return [{key: tuple(v) if isinstance(v, range) else v for key, v in cell.items()} for cell in cells]


def _with_overrides(overrides: Overrides) -> Any:
    """Config of a cell, with references between keys resolved again."""
    config = cli.read_config(_config_text(), common.get_config)
    try:
        config.update_from_flattened_dict({**_given(), **overrides})
    except (TypeError, ValueError) as error:
        reason = cli.one_line(error)
        raise UserError(f'sweep() of {_config_text()} yields {dict(overrides)}: {reason}') from error
    return config.copy_and_resolve_references()


def _dry_command(directory: Path, overrides: Overrides) -> list[str]:
    """Command that trains a cell with the config file in its current state."""
    common = [argument for argument in sys.argv[1:] if re.match(r'--?(no)?config[.=]', argument)]
    cell = [f'--config.{key}={value}' for key, value in overrides.items()]
    return [sys.executable, str(TRAIN), *common, *cell, f'--workdir={directory}']


def _command(grid: Path, name: str) -> list[str]:
    """Command that trains a cell with the config that the sweep saved when it began."""
    return [sys.executable, str(TRAIN), f'--config={grid}/configs/{name}.json', f'--workdir={grid}/cells/{name}']


def _read_manifest(path: Path) -> dict[str, Overrides]:
    """Overrides of all cells that have begun, by name. A broken line, as a crash leaves it, is skipped."""
    found = {}
    for line in path.read_text(errors='replace').splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
            found[record['cell']] = record['overrides']
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _last_line(grid: Path, name: str) -> str:
    lines = (grid / 'logs' / f'{name}.log').read_text().strip().splitlines()
    return lines[-1] if lines else ''


if __name__ == '__main__':
    cli.run(main, common.get_config)
