"""Growth of the time and memory of attention with tokens, heads and width, beside what theory says.

    python benchmarks/complexity.py [--lengths=256,512,1024,2048,4096] [--window=64] [--output=folder]

    full attention    time n^2 d    memory n^2 h (dense), n d (blockwise)
    window of w keys  time n w d    memory n d (blockwise); dense computes hidden pairs too
    linear attention  time n d^2 / h    memory n d

A layer's queries, keys and values, [1, n, h, d/h] in float32, are attended forward and backward, without positions. One
of n, h and d varies, the others keep their middle value. An exponent is the slope of a line through the logarithms of
the upper half of the measurements, where constant costs count least; memory is what XLA allocates in addition to inputs
and outputs. Rounds alternate between all programs of one kind, so that other load affects them equally.
"""
# ruff: noqa: E402

import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx
from tqdm import tqdm

from mha import cli, cores, positions, spec
from mha.nn import masks

LENGTHS = flags.DEFINE_string('lengths', '256,512,1024,2048,4096', 'Tokens, comma-separated.')
HEADS = flags.DEFINE_string('heads', '1,2,4,8,16', 'Heads, comma-separated.')
WIDTHS = flags.DEFINE_string('widths', '64,128,256,512,1024', 'Widths, comma-separated; multiples of all heads.')
WINDOW = flags.DEFINE_integer('window', 64, 'Keys on either side in a window.', lower_bound=1)
ROUNDS = flags.DEFINE_integer('rounds', 5, 'Number of rounds.', lower_bound=1)
OUTPUT = flags.DEFINE_string('output', None, 'Folder for complexity.md and complexity.svg.')


@dataclasses.dataclass(frozen=True)
class Kind:
    """Core and pattern, with the growth that theory says: exponents of time in n, h and d, and of memory in n."""

    name: str
    core: str
    pattern: Callable[[], masks.Mask]
    theory: str
    exponents: dict[str, float]


def kinds() -> list[Kind]:
    def window():
        return masks.window(WINDOW.value)

    full, near = dict(n=2.0, h=0.0, d=1.0), dict(n=1.0, h=0.0, d=1.0)
    return [
        Kind('dense', 'dense', masks.full, 'n^2 d', {**full, 'memory': 2.0}),
        Kind('blockwise', 'blockwise', masks.full, 'n^2 d', {**full, 'memory': 1.0}),
        Kind('dense, window', 'dense', window, 'n^2 d', {**full, 'memory': 2.0}),
        Kind('blockwise, window', 'blockwise', window, 'n w d', {**near, 'memory': 1.0}),
        Kind('linear', 'linear', masks.full, 'n d^2 / h', dict(n=1.0, h=-1.0, d=2.0, memory=1.0)),
    ]


@dataclasses.dataclass
class Program:
    """Forward and backward pass of one kind at one size: its compiled call, its memory in bytes, its times."""

    run: Callable[[], Any]
    memory: float
    times: list[float] = dataclasses.field(default_factory=list)


def program(kind: Kind, n: int, h: int, d: int) -> Program:
    position = positions.make('none', positions.Dims(d, h, d // h, n), rngs=nnx.Rngs(0))
    pos, x = jnp.arange(n)[None], jnp.zeros((1, n, 1))
    coords = positions.Coords(pos, pos, jnp.full((1, n), n), x, contiguous=True)
    q, k, v, cotangent = jax.random.normal(jax.random.key(0), (4, 1, n, h, d // h))

    def loss(q, k, v):
        out = cores.attend(q, k, v, position=position, coords=coords, mask=kind.pattern(), core=kind.core)
        return jnp.vdot(out, cotangent)

    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(q, k, v).compile()
    analysis = compiled.memory_analysis()
    memory = float('nan') if analysis is None else analysis.temp_size_in_bytes
    return Program(lambda: jax.block_until_ready(compiled(q, k, v)), memory)


def measure(kind: Kind, sizes: dict[str, Sequence[int]], bar: tqdm) -> dict[str, list[Program]]:
    """Programs of one kind, by what varies, with their times."""
    middle = {name: values[len(values) // 2] for name, values in sizes.items()}
    made = {name: [program(kind, **{**middle, name: value}) for value in values] for name, values in sizes.items()}
    for count in range(1 + ROUNDS.value):
        for one in (one for group in made.values() for one in group):
            clock = time.perf_counter()
            one.run()
            if count:  # the first round warms up
                one.times.append(time.perf_counter() - clock)
        bar.set_postfix_str(f'{kind.name}, round {count} of {ROUNDS.value}')
    return made


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent of the growth of y with x, over the upper half of the points."""
    first = len(x) // 2
    return float(np.polyfit(np.log(x[first:]), np.log(np.maximum(y[first:], 1)), 1)[0])


def report(found: dict[str, dict[str, list[Program]]], sizes: dict[str, Sequence[int]]) -> str:
    """Markdown with the conditions of the measurement and the table of exponents."""
    middle = ', '.join(f'{name} = {values[len(values) // 2]}' for name, values in sizes.items())
    lines = [
        '# Growth of time and memory',
        '',
        f'{jax.devices()[0].device_kind}, {os.cpu_count()} cores; jax {jax.__version__}. Forward and backward pass in '
        f'float32, median of {ROUNDS.value} rounds; where not varied, {middle}. w = {WINDOW.value} keys on each side.',
        'Exponents: measured (theory). Time in ms and memory in MB at the middle sizes.',
        '',
        '| attention | time | in n | in h | in d | memory in n | ms | MB |',
        '|---|---|---:|---:|---:|---:|---:|---:|',
    ]
    for kind in kinds():
        by_size = found[kind.name]
        times = {name: [statistics.median(one.times) * 1e6 for one in group] for name, group in by_size.items()}
        cells = [f'{slope(sizes[name], times[name]):.2f} ({kind.exponents[name]:.0f})' for name in sizes]
        memory = [one.memory for one in by_size['n']]
        cells.append(f'{slope(sizes["n"], memory):.2f} ({kind.exponents["memory"]:.0f})')
        at = len(sizes['n']) // 2
        cells += [f'{times["n"][at] / 1e3:.1f}', f'{memory[at] / 1e6:.1f}']
        lines.append(f'| {kind.name} | {kind.theory} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def plot(found: dict[str, dict[str, list[Program]]], sizes: dict[str, Sequence[int]], path: Path) -> None:
    """Times against n, h and d, and memory against n, on logarithmic axes."""
    import matplotlib
    from matplotlib.figure import Figure

    from mha.views.report import plots

    with matplotlib.rc_context(plots.STYLE):
        drawing = Figure(figsize=(15, 3.6), layout='constrained')
        panels = [(name, 'ms') for name in sizes] + [('n', 'MB')]
        for axes, (name, unit) in zip(drawing.subplots(1, len(panels)), panels, strict=True):
            for colour, (kind, by_size) in zip(plots.PALETTE, found.items(), strict=False):
                group = by_size[name]
                y = [statistics.median(one.times) * 1e3 if unit == 'ms' else one.memory / 1e6 for one in group]
                axes.loglog(sizes[name], y, 'o-', color=colour, markersize=4, label=kind)
            axes.set_xticks(sizes[name], [str(size) for size in sizes[name]], rotation=45)
            axes.minorticks_off()
            axes.yaxis.set_major_formatter('{x:g}')
            axes.set(xlabel=dict(n='tokens', h='heads', d='width')[name], ylabel=unit)
        axes = drawing.axes[-1]
        axes.legend(frameon=False, loc='center left', bbox_to_anchor=(1, 0.5))
        path.write_text(plots.as_svg(drawing), encoding='utf-8')


def main() -> None:
    sizes = dict(
        n=spec.lengths(LENGTHS.value, '--lengths'),
        h=spec.lengths(HEADS.value, '--heads'),
        d=spec.lengths(WIDTHS.value, '--widths'),
    )
    if wrong := [(h, d) for h in sizes['h'] for d in sizes['d'] if d % h]:
        raise spec.UserError(f'--widths: {wrong[0][1]} is no multiple of {wrong[0][0]} heads')
    if few := [name for name, values in sizes.items() if len(values) < 3]:
        raise spec.UserError(
            f'an exponent needs three sizes: add some to --{dict(n="lengths", h="heads", d="widths")[few[0]]}'
        )
    bar = tqdm(kinds(), unit=' kinds', dynamic_ncols=True)
    found = {kind.name: measure(kind, sizes, bar) for kind in bar}
    text = report(found, sizes)
    print(text)
    if OUTPUT.value:
        folder = Path(OUTPUT.value)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'complexity.md').write_text(text)
        plot(found, sizes, folder / 'complexity.svg')


if __name__ == '__main__':
    cli.run(main)
