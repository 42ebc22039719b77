"""Estimates of the time that the cells of a sweep take on this machine.

A finished cell tells the time of the other cells of its kind, which differ only in the seed and in numbers that cost
nothing. Other kinds are rehearsed (`cost.py`), in processes like those of the local launcher and as many at a time.
The kinds that differ most come first; those for which no rehearsal is left are estimated from the nearest.
"""

import dataclasses
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mha import spec
from mha.machine import parallel
from mha.run import cost, population, workdir
from mha.run.cost import Config, Cost
from mha.run.launchers import Grid, local

MOST = 12
"""Largest number of kinds that are rehearsed."""
LATEST = 180.0
"""Seconds after which no further rehearsal starts."""
FREE = {'seed', 'eval.seed', 'optimizer.learning_rate', 'optimizer.weight_decay', 'model.dropout_rate'}
"""Config keys in which cells of one kind may differ."""
DISTANCES = {
    'train.steps': 0,  # known from the time of one step
    'task': 1000,
    **dict.fromkeys([f'model.{size}' for size in ('layers', 'dim', 'heads', 'head_dim', 'mlp_dim')], 30),
    **dict.fromkeys([f'population.{name}' for name in population.SETTINGS], 30),
    **dict.fromkeys(['train.lengths', 'train.batch_size', 'train.microbatches', 'eval.lengths'], 30),
}
"""Distance between two kinds that differ in a config key; 1 for other keys."""


def estimate(cells: Mapping[str, Config], grid: Grid, jobs: int, here: bool = True) -> str:
    """Time that the unfinished cells of `grid` will take, `jobs` at a time, in words. `cells` are all configs by name;
    `here` is whether cells will share this machine."""
    kinds = {name: _text(kind(config)) for name, config in cells.items()}
    took: dict[str, list[float]] = {}
    for name in cells:
        if grid.finished(name) and (seconds := workdir.summary(grid.workdir(name)).get('seconds')):
            took.setdefault(kinds[name], []).append(seconds)
    left = {name: config for name, config in cells.items() if not grid.finished(name)}
    if not left:
        return 'all finished'
    new = {name: config for name, config in left.items() if kinds[name] not in took}
    order = unlike(list(new.values()))
    timed = rehearse(order[:MOST], min(jobs, len(left), MOST) if here else 1) if new else []
    if new and not timed:
        return 'their time is unknown'

    costs = {name: nearest(config, timed) for name, config in new.items()}
    first = {_text({**config, 'seed': 0}): name for name, config in reversed(new.items())}  # these compile the programs
    each = [
        costs[name].seconds(config, compiled=name not in first.values())
        if name in new
        else float(np.mean(took[kinds[name]]))
        for name, config in left.items()
    ]
    how = []
    if len(new) < len(left):
        how.append(f'as {sum(map(len, took.values()))} finished of the same kind took')
    if new:
        rehearsed = len({_text(kind(config)) for config, _ in timed})
        rest = f', the other {len(order) - rehearsed} kinds as the most similar' if rehearsed < len(order) else ''
        how.append(f'from a rehearsal of {rehearsed}{rest}')
    low, high = spoken(min(each)), spoken(max(each))
    about = f'about {low}' if low == high else f'{low} to {high}'
    count = f'{len(left)} left, ' if len(left) < len(cells) else ''
    return f'{count}{about} each ({"; ".join(how)}), {spoken(_together(each, jobs))} in all with --jobs={jobs}'


def kind(config: Config) -> dict[str, Any]:
    """Flat config without the numbers that cost nothing; of a population, the number of values."""
    flat = {name: value for name, value in spec.flatten(config).items() if name not in FREE}
    return {name: len(value) if name.startswith('population.') and value else value for name, value in flat.items()}


def _text(flat: Config) -> str:
    return json.dumps(flat, sort_keys=True, default=list)


def apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    """Distance between two kinds."""
    return sum(DISTANCES.get(key, 1) for key in {**one, **other} if one.get(key) != other.get(key))


def unlike(configs: Sequence[Config]) -> list[Config]:
    """One config of every kind, ordered so that each differs most from those before it."""
    kinds = [kind(config) for config in configs]
    order: list[int] = []
    distances: list[float] = [math.inf] * len(configs)
    while distances and (furthest := max(distances)) > 0:
        order.append(distances.index(furthest))
        distances = [min(old, apart(each, kinds[order[-1]])) for old, each in zip(distances, kinds, strict=True)]
    return [configs[index] for index in order]


def nearest(config: Config, timed: Sequence[tuple[Config, Cost]]) -> Cost:
    """Cost of the rehearsed config that differs least; the mean of several equally near."""
    distances = [apart(kind(config), kind(other)) for other, _ in timed]
    near = [dataclasses.astuple(one) for away, (_, one) in zip(distances, timed, strict=True) if away == min(distances)]
    return Cost(*np.mean(near, axis=0).tolist())


def _together(seconds: Sequence[float], jobs: int) -> float:
    """Time of runs that start in this order, `jobs` at a time."""
    ends = [0.0] * jobs
    for each in seconds:
        ends = [*sorted(ends)[1:], min(ends) + each]
    return max(ends)


def spoken(seconds: float) -> str:
    """Time in words: `'2 h 5 min'`, `'40 s'`."""
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f'{hours} h {minutes} min'
    return f'{minutes} min' if seconds >= 100 else f'{max(round(seconds), 1)} s'


def rehearse(configs: Sequence[Config], jobs: int) -> list[tuple[Config, Cost]]:
    """Costs of `configs`, of which `jobs` are timed at once. If they are fewer, some are timed repeatedly, so that they
    share the machine as cells will."""
    count, many = len(configs), max(len(configs), jobs)
    print(f'rehearsing {count} cell{"s" * (count > 1)}: some training steps and an evaluation', file=sys.stderr)
    waiting = [(str(index), config) for index, config in zip(range(many), itertools.cycle(configs))]
    waiting.reverse()
    rehearsed, running, costs = dict(waiting), {}, []
    slots, shares, started = list(range(jobs)), local.Shares(jobs), time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        local.Warm() as warm,
        parallel.progress(total=many, unit=' cells', desc='rehearse') as bar,
    ):
        files = {name: Path(folder, f'{name}.json') for name in rehearsed}
        while waiting or running:
            if time.monotonic() - started > LATEST:
                waiting.clear()
            while waiting and slots:
                (name, config), slot = waiting.pop(), slots.pop()
                workdir.write_json(files[name], config)
                running[name] = local.Running(slot, bar, ours=True)
                command = [sys.executable, cost.__file__, str(files[name])]
                warm.start(name, command, files[name].with_suffix('.log'), *shares.of(slot))
            time.sleep(local.EVERY)
            warm.look(running)
            for name in [name for name, cell in running.items() if cell.code is not None]:
                cell = running.pop(name)
                slots.append(cell.slot)
                bar.update()
                if cell.code == 0:
                    costs.append((rehearsed[name], Cost(**json.loads(files[name].read_text()))))
                    continue
                last = files[name].with_suffix('.log').read_text(errors='replace').strip().splitlines()[-1:]
                bar.write(f'note: a rehearsal failed: {"".join(last) or f"exit code {cell.code}"}', file=sys.stderr)
    return costs
