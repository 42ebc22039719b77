"""Cells of a sweep: names, populations and directories. A cell is a run with its own overrides of the config."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mha.run import population, workdir
from mha.run.manifest import Overrides
from mha.spec import UserError, compact

NUMBERS = {key: f'population.{name}' for name, key in population.SETTINGS.items()}
"""Config keys in which members of a population may differ, with the key of the population for each."""


# ---------------------------------------------------------------------------------------------------------------- names
def named(cells: Sequence[Overrides], known: Mapping[str, Overrides]) -> dict[str, Overrides]:
    """Cells by their names, which are also names of directories: the name in the manifest `known`, or else a name such
    as `'heads=4,seed=0'` for `{'model.heads': 4, 'seed': 0}`. Keys are shortened as far as they stay
    different. Names that are too long, or equal, end in a hash."""
    keys = {key for cell in cells for key in cell}
    plain = [json.loads(json.dumps(cell)) for cell in cells]
    names = [
        next((name for name, there in known.items() if there == cell), None)
        or workdir.file_name(','.join(f'{_shortest(key, keys)}={_value(value)}' for key, value in overrides.items()))
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


def _value(value: Any) -> str:
    """Value of a cell in its name: `'0-9'` for ten seeds, `'0.001,0.0003'` for two rates."""
    if not isinstance(value, list | tuple):
        return str(value)
    counts = all(type(each) is int for each in value) and list(value) == sorted(value)
    return compact(value) if counts else ','.join(map(str, value))


def _shortest(key: str, keys: Iterable[str]) -> str:
    """Shortest end of a key, in whole parts, that no other of the `keys` has."""
    parts = key.split('.')
    ends = ('.'.join(parts[start:]) for start in range(len(parts) - 1, -1, -1))
    unique = (end for end in ends if not any(f'.{other}'.endswith(f'.{end}') for other in keys if other != key))
    return next(unique, key)


# ---------------------------------------------------------------------------------------------------------- populations
def members(overrides: Overrides) -> list[dict[str, Any]]:
    """Cells, one per member, that a cell with a population is equal to; the cell itself without a population."""
    varied = {key: overrides[at] for key, at in NUMBERS.items() if isinstance(overrides.get(at), list | tuple)}
    rest = {key: value for key, value in overrides.items() if key not in {NUMBERS[name] for name in varied}}
    return [{**rest, **dict(zip(varied, values, strict=True))} for values in itertools.product(*varied.values())]


def populations(cells: Sequence[Overrides]) -> list[Overrides]:
    """Cells in which those that differ only in numbers are replaced by one population, if they are all combinations of
    these numbers."""
    groups: dict[str, list[Overrides]] = {}
    for cell in cells:
        alike = {key: value for key, value in cell.items() if key not in NUMBERS}
        groups.setdefault(f'{_text(alike)} {sorted(cell.keys() & NUMBERS.keys())}', []).append(cell)
    found: list[Overrides] = []
    for group in groups.values():
        values = {key: tuple(dict.fromkeys(cell[key] for cell in group)) for key in group[0] if key in NUMBERS}
        together = {key: value for key, value in group[0].items() if key not in NUMBERS}
        together |= {NUMBERS[key]: each for key, each in values.items()}
        whole = len(members(together)) == len(group) > 1
        found += [together] if whole else group
    return found


def check_begun_alike(cells: Mapping[str, Overrides], manifest: Mapping[str, Overrides]) -> None:
    """Raises `UserError` if a cell would train the model of another cell again, alone instead of as a member of a
    population or the reverse."""
    begun = {_text(member): name for name, overrides in manifest.items() for member in members(overrides)}
    for name, overrides in cells.items():
        for member in members(overrides):
            other = begun.get(_text(member), name)
            if other != name:
                how = 'with' if len(members(manifest[other])) > 1 else 'without'
                raise UserError(f'cell {other} of this sweep trains what {name} would - go on {how} --population=auto')


def _text(overrides: Overrides) -> str:
    return json.dumps(overrides, sort_keys=True)


# ---------------------------------------------------------------------------------------------------------------- files
def is_sweep(directory: Path) -> bool:
    return not (directory / 'config.json').exists() and (directory / 'cells').is_dir()


def finished(directory: Path) -> tuple[list[Path], int]:
    """Finished cells of the sweep in a directory, and the number of others. A cell with a broken file counts as
    finished: its evaluation reports the file."""
    cells = sorted(path for path in (directory / 'cells').iterdir() if (path / 'config.json').exists())
    done = [cell for cell in cells if may_be_finished(cell)]
    if not done:
        raise UserError(f'no cell of the sweep in {directory} is finished - run its sweep.py command again first')
    return done, len(cells) - len(done)


def may_be_finished(cell: Path) -> bool:
    """Whether a run is finished, or has a broken file, which reading it reports."""
    try:
        return workdir.finished(cell)
    except UserError:
        return True
