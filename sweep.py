"""Runs every cell of a config's `sweep()`.

    python sweep.py --config=configs/quickstart.py --workdir=runs/grid [--jobs=2] [--dry_run]
    python sweep.py ... --sweep=positions,heads             # sweep_positions() of the file, then sweep_heads()
    python sweep.py ... --only=model.position=rope          # some cells of it
    python sweep.py ... --population=auto                   # cells that differ in numbers alone as one run
    python sweep.py ... --cluster="slurm(partition='gpu')"  # or commands, which prints them

The same command, run again, skips finished cells and resumes interrupted ones. Flags `--config.x=y` apply to all cells.
"""

from mha import cli  # isort: split

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from configs import common
from mha import spec
from mha.machine import parallel, signals
from mha.run import cells, launchers, manifest, rehearsal, sinks, workdir
from mha.run.build import check_cells
from mha.run.experiment import at_once
from mha.spec import UserError

CLUSTER = flags.DEFINE_string('cluster', 'local', f'Launcher of the cells, a spec: {", ".join(launchers.names())}.')
CONFIG = config_flags.DEFINE_config_file('config', None, 'Experiment: configs/<name>.py with a sweep().')
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Print the commands, their number and estimated time; run nothing.')
JOBS = flags.DEFINE_integer('jobs', None, 'Number of cells to run at a time, which share the cores.', lower_bound=1)
LOG_TO = flags.DEFINE_multi_string(
    'log_to', [], f'Where metrics of cells also go, a spec: {", ".join(sinks.names())}. Repeatable.'
)
ONLY = flags.DEFINE_multi_string('only', [], 'Condition that cells must meet: model.position=rope. Repeatable.')
POPULATION = flags.DEFINE_enum(
    'population', 'none', ['none', 'auto'], 'auto: one run for cells unlike in numbers only.'
)
SWEEP = flags.DEFINE_list('sweep', [], 'Names of sweeps, each a sweep_<name>() of the config file; default: sweep().')
WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of the sweep; its runs go to cells/.')


def main() -> None:
    config = cli.required('config', CONFIG.value)
    directory = cli.path('workdir', WORKDIR.value)
    launcher = launchers.make(CLUSTER.value, JOBS.value)
    sinks.make(LOG_TO.value)
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # all cells share the memory of a GPU
    if config.mesh.data or config.mesh.model > 1:  # otherwise one device is enough to check the cells
        parallel.use_cores(at_once(config.train.to_dict()))

    # ----------------------------------------------------------------------------------------------- Cells, all checked
    begun = manifest.read(directory)
    every = _sweep(config)
    kept = _kept(every)
    together = cells.populations(kept)
    auto = POPULATION.value == 'auto'
    named = cells.named(together if auto else every, begun)  # the names of some cells are those among all
    chosen = {name: overrides for name, overrides in named.items() if overrides in (together if auto else kept)}
    cells.check_begun_alike(chosen, begun)
    configs = {name: _with_overrides(overrides).to_dict() for name, overrides in chosen.items()}
    check_cells(configs)  # so that a mistake in the last cell shows before the others run
    for name, cell in configs.items():
        workdir.check_same(directory / 'cells' / name, cell)
    grid = launchers.Grid(directory, {name: cell['train']['steps'] for name, cell in configs.items()}, _log_to())
    if DRY_RUN.value:
        print('\n'.join(shlex.join(_dry_command(grid.workdir(name), chosen[name])) for name in configs), flush=True)
        _offer_populations(len(kept), len(together))
        time = rehearsal.estimate(configs, grid, JOBS.value or 1, launcher.here)
        print(f'{_count(configs)}, {time}', file=sys.stderr)
        return

    # -------------------------------------------------------------------------------------------- Files, then the cells
    _prepare(directory, begun)
    for name, cell in configs.items():  # the config file may change before the last cell starts
        workdir.write_json(directory / 'configs' / f'{name}.json', cell)
    if not begun:
        _offer_populations(len(kept), len(together))
    manifest.add(directory, {name: chosen[name] for name in configs}, _config_text())
    with signals.delayed(interrupts=True):  # so that cells end first
        failed = launcher.run(grid)
    if failed:
        raise SystemExit(
            f'{len(failed)} of {_count(configs)} failed ({", ".join(failed)}); the same command tries them again'
        )
    if failed is not None:
        print(f'finished {_count(configs)}; now: python compare.py {shlex.quote(str(directory))}')


def _log_to() -> list[str]:
    return [f'--log_to={text}' for text in LOG_TO.value]


def _count(cells: Mapping[str, Any]) -> str:
    return f'{len(cells)} cell{"s" * (len(cells) != 1)}'


def _offer_populations(cells: int, runs: int) -> None:
    if runs < cells and POPULATION.value == 'none':
        many = f'{cells} cells are {runs} but for seeds, rates and weight decay'
        print(f'{many}: --population=auto trains those as members of one run', file=sys.stderr)


def _kept(every: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cells that meet the conditions of --only."""
    if not ONLY.value:
        return every
    flat = {index: spec.flatten(_with_overrides(cell).to_dict()) for index, cell in enumerate(every)}
    return [every[index] for index in spec.only(ONLY.value, flat)]


def _prepare(directory: Path, begun: Mapping[str, Any]) -> None:
    """Makes the directory of the sweep and locks it. Raises `UserError` if it holds something else."""
    ours = {'lock', 'logs', 'configs', 'cells', 'manifest.jsonl'}
    try:
        there = {path.name for path in directory.iterdir()} if directory.exists() else set()
        lines = 'manifest.jsonl' in there and b'\n' in (directory / 'manifest.jsonl').read_bytes()
        if lines and not begun:  # half a line is what a start left that was killed
            raise UserError(f'{directory / "manifest.jsonl"} names no cell that can be read - restore it, or remove it')
        if there - ours and not begun:
            raise UserError(f'{directory} is not empty and holds no sweep - choose another --workdir')
        for folder in 'logs', 'configs', 'cells':
            (directory / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'cannot make the directory {directory}: {error.strerror} - choose another --workdir'
        ) from error
    workdir.hold(directory)


def _config_text() -> str:
    return getattr(flags.FLAGS['config'], 'config_filename')  # noqa: B009 - absl does not know this kind of flag


def _given() -> dict[str, Any]:
    """Settings on the command line, which apply to every cell."""
    return getattr(flags.FLAGS['config'], 'override_values')  # noqa: B009


def _sweep(config: Any) -> list[dict[str, Any]]:
    """Overrides of every cell, checked."""
    text, keys = _config_text(), spec.flatten(config.to_dict())
    file, _ = cli.config_file(text)
    there = {} if file.suffix == '.json' else cli.load(file)
    named = sorted(name.removeprefix('sweep_') for name in there if name.startswith('sweep_') and callable(there[name]))
    found: list[dict[str, Any]] = []
    for name in SWEEP.value or ['']:
        function = f'sweep_{spec.choose(name, named, f"sweep of {file}")}' if name else 'sweep'
        if function not in there:
            other = f'choose --sweep={",".join(named)}' if named else 'add a generator of overrides'
            raise UserError(f'{file} has no sweep() - {other} such as {{"model.heads": 4}}')
        cells = cli.call(text, function)
        if not isinstance(cells, list | tuple) or not cells:
            raise UserError(f'{file} yields no cells in {function}()')
        for cell in cells:
            _check_cell(cell, f'{function}() of {file}', keys)
        plain = [{key: _plain(value) for key, value in cell.items()} for cell in cells]
        found += [cell for cell in plain if cell not in found or not SWEEP.value]
    return found


def _plain(value: Any) -> Any:
    """Value of a cell in types that JSON knows: ranges and arrays as tuples, numbers of NumPy as Python's."""
    value = value.tolist() if hasattr(value, 'tolist') else value
    value = tuple(value) if isinstance(value, range | list) else value
    try:
        json.dumps(value)
    except TypeError as error:
        raise UserError(f'sweep() yields {value!r}, which is no number, text or tuple of these') from error
    return value


def _check_cell(cell: Any, sweep: str, keys: Mapping[str, Any]) -> None:
    """Raises `UserError` unless a cell is a dict of config keys that no flag sets."""
    wrong = f'{sweep} yields {cell!r}'
    if not isinstance(cell, dict):
        raise UserError(f'{sweep} must yield dicts such as {{"model.heads": 4}}, not {cell!r}')
    if not cell:
        raise UserError(f'{wrong}, which sets nothing - name at least one key, such as {{"seed": 0}}')
    for key, value in cell.items():
        if isinstance(value, dict):
            inner = next(iter(value), 'key')
            raise UserError(f'{wrong} - write nested keys with dots, such as {{"{key}.{inner}": ..}}')
        if key not in keys:
            raise UserError(f'{wrong}: no key {key!r}{cli.near(str(key), keys)}')
        if value is None:
            raise UserError(f'{sweep} yields {key!r}: None - leave the key out instead')
        if key in _given():
            raise UserError(f'--config.{key} is set by {sweep} in its cells - leave the flag out')


def _with_overrides(overrides: manifest.Overrides) -> Any:
    """Config of a cell, with references between keys resolved again."""
    config = cli.read_config(_config_text(), common.get_config)
    cli.update(config, {**_given(), **overrides}, f'sweep() of {_config_text()} yields {dict(overrides)}')
    return config.copy_and_resolve_references()


def _dry_command(directory: Path, overrides: manifest.Overrides) -> list[str]:
    """Command that trains a cell with the config file in its current state."""
    common = [argument for argument in sys.argv[1:] if re.match(r'--?(no)?config[.=]', argument)]
    cell = [f'--config.{key}={value}' for key, value in overrides.items()]
    return [sys.executable, str(launchers.TRAIN), *common, *cell, f'--workdir={directory}', *_log_to()]


if __name__ == '__main__':
    cli.run(main, common.get_config)
