"""Combinators of sweeps. A sweep is a list of cells; a cell is a dict of config keys and their values.

    def sweep():
        schemes = sweeps.over('model.position', ('rope', 'alibi'))
        seeds = sweeps.over('seed', range(3))
        return sweeps.product(schemes, seeds)  # six cells

`sweep()` may also be a generator with loops of its own.
"""

import builtins
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

Cells = Iterable[Mapping[str, Any]]


def over(key: str, values: Iterable[Any]) -> list[dict[str, Any]]:
    """One cell per value of a key."""
    return [{key: value} for value in values]


def product(*sweeps: Cells) -> list[dict[str, Any]]:
    """Every combination of the sweeps' cells; those of the last sweep vary fastest."""
    return [_union(cells) for cells in itertools.product(*map(list, sweeps))]


def zip(*sweeps: Cells) -> list[dict[str, Any]]:
    """First cells of all sweeps combined into one, then the second ones. Raises `ValueError` if lengths differ."""
    return [_union(cells) for cells in builtins.zip(*sweeps, strict=True)]


def chain(*sweeps: Cells) -> list[dict[str, Any]]:
    """One sweep after the other, without repeated cells."""
    found: list[dict[str, Any]] = []
    for cell in itertools.chain(*sweeps):
        if cell not in found:
            found.append(dict(cell))
    return found


def _union(cells: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Union of cells. Raises `ValueError` if two set the same key."""
    found: dict[str, Any] = {}
    for cell in cells:
        if twice := found.keys() & cell.keys():
            raise ValueError(f'{", ".join(sorted(twice))} set by two sweeps that are combined')
        found |= cell
    return found
