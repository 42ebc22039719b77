"""Cells of a sweep, each a run: their names, the manifest of those begun, and populations of those that are alike."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mha.run import population, workdir
from mha.spec import UserError

Overrides = Mapping[str, Any]
NUMBERS = {key: f'population.{name}' for name, key in population.SETTINGS.items()}
"""Keys in which the members of one population may differ, and where a config says so."""


# ---------------------------------------------------------------------------------------------------------------- names
def named(cells: Sequence[Overrides], known: Mapping[str, Overrides]) -> dict[str, Overrides]:
    """The cells under names fit for directories: those that the manifest `known` gives them, else
    `{'model.position': 'rope', 'seed': 0}` -> `'position=rope,seed=0'`. A key is as long as it takes to tell it from
    the others; names that are too long or meet end in a hash."""
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
    """The end of a key, in whole parts, that no other of the `keys` has."""
    parts = key.split('.')
    ends = ('.'.join(parts[at:]) for at in range(len(parts) - 1, -1, -1))
    unique = (end for end in ends if not any(f'.{other}'.endswith(f'.{end}') for other in keys if other != key))
    return next(unique, key)


# ------------------------------------------------------------------------------------------------------------- manifest
def read_manifest(path: Path) -> dict[str, Overrides]:
    """The overrides of the cells that a sweep has begun with; half a line, as a crash leaves it, is passed over."""
    found = {}
    for line in path.read_text(errors='replace').splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
            found[record['cell']] = record['overrides']
        except (ValueError, KeyError, TypeError):
            continue
    return found


def add_to_manifest(path: Path, cells: Mapping[str, Overrides], config: str) -> None:
    """Adds the cells that the manifest does not have yet, of the sweep of the file `config`."""
    known = read_manifest(path)
    half = path.exists() and not path.read_bytes().endswith(b'\n')
    with path.open('a') as file:
        file.write('\n' if half and known else '')
        for name, overrides in cells.items():
            if name not in known:
                file.write(json.dumps({'cell': name, 'config': config, 'overrides': overrides}) + '\n')


def check_begun_alike(cells: Mapping[str, Overrides], manifest: Mapping[str, Overrides]) -> None:
    """Raises `UserError` if a cell would train again what another one of the manifest trains: alone or as a member."""
    begun = {_text(member): name for name, overrides in manifest.items() for member in members(overrides)}
    for name, overrides in cells.items():
        for member in members(overrides):
            other = begun.get(_text(member), name)
            if other != name:
                how = 'with' if len(members(manifest[other])) > 1 else 'without'
                raise UserError(f'cell {other} of this sweep trains what {name} would - go on {how} --population=auto')


# ---------------------------------------------------------------------------------------------------------- populations
def members(overrides: Overrides) -> list[dict[str, Any]]:
    """The cells that a population stands for; of a cell without one, itself."""
    varied = {key: overrides[at] for key, at in NUMBERS.items() if isinstance(overrides.get(at), list | tuple)}
    rest = {key: value for key, value in overrides.items() if key not in {NUMBERS[name] for name in varied}}
    return [{**rest, **dict(zip(varied, values, strict=True))} for values in itertools.product(*varied.values())]


def populations(cells: Sequence[Overrides]) -> list[Overrides]:
    """The cells with those that differ in numbers alone as one population, where they have every combination."""
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


def _text(overrides: Overrides) -> str:
    return json.dumps(overrides, sort_keys=True)
