"""Time and temporary memory of the attention cores beside named peers, as sequences grow.

    python benchmarks/attention.py [--lengths=64,256,1024,4096] [--budget=60] [--position=t5] [--output=folder]

Every contender computes the same attention: the queries, keys and values of one layer, under the bias of a position
scheme, with gradients of q, k, v and, where supported, of the scheme's parameters. Peers that have no position schemes
get the bias as a matrix [H, T, T], computed in the same program. Rounds alternate between contenders, so that other
load on the machine affects all of them equally; the ratio is the median over rounds. Memory is what XLA allocates in
addition to inputs and outputs. A contender that is too slow or does not fit into memory at one length skips longer
ones.
"""
# ruff: noqa: E402

import dataclasses
import functools
import importlib.util
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import flax
import jax
import jax.numpy as jnp
from absl import flags
from flax import nnx
from tqdm import tqdm

from mha import cli, cores, positions, spec
from mha.nn import masks

LENGTHS = flags.DEFINE_list('lengths', [str(2**n) for n in range(6, 17)], 'Tokens, comma-separated.')
BUDGET = flags.DEFINE_float('budget', 60.0, 'Seconds of measuring per length and pass.', lower_bound=0)
ROUNDS = flags.DEFINE_integer('rounds', 9, 'Maximal number of rounds per length and pass.', lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer('batch_size', 1, 'Examples per call.', lower_bound=1)
HEADS = flags.DEFINE_integer('heads', 8, 'Attention heads.', lower_bound=1)
HEAD_DIM = flags.DEFINE_integer('head_dim', 64, 'Channels of a head.', lower_bound=1)
POSITION = flags.DEFINE_string('position', 't5', 'Position scheme: none, or one that uses the bias hook only.')
CAUSAL = flags.DEFINE_bool('causal', False, 'Whether queries see earlier keys only.')
WINDOW = flags.DEFINE_integer('window', 0, 'Keys on either side that a query sees; 0 for all.', lower_bound=0)
DTYPE = flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Type of queries, keys and values.')
CONTENDERS = flags.DEFINE_list('contenders', None, 'Names, comma-separated; default: all that are available.')
MEMORY = flags.DEFINE_float('memory', 8.0, 'GB that a contender may allocate.', lower_bound=0)
OUTPUT = flags.DEFINE_string('output', None, 'Folder for attention.md and attention.svg.')
REFERENCE = 'jax.nn'
PASSES = ('forward', 'forward+backward')


@dataclasses.dataclass
class Program:
    """Compiled call: `run` returns when the result is ready; `memory` is in bytes, or None if unknown."""

    run: Callable[[], Any]
    memory: int | None = None


class Problem:
    """Arrays of one length, the same for all contenders."""

    def __init__(self, length: int):
        self.length = length
        dims = positions.Dims(HEADS.value * HEAD_DIM.value, HEADS.value, HEAD_DIM.value, length, CAUSAL.value)
        position = positions.make(POSITION.value, dims, rngs=nnx.Rngs(0))
        others = set(positions.HOOKS) - {'remap', 'embed', 'bias'}
        extra = sorted(filter(position.overrides, others))
        if extra:
            raise spec.UserError(f'--position={POSITION.value}: peers support biases only, not the hook {extra[0]!r}')
        self.graphdef, self.state = nnx.split(position)
        self.biased = position.overrides('bias')
        shape = (BATCH_SIZE.value, length, HEADS.value, HEAD_DIM.value)
        keys = jax.random.split(jax.random.key(0), 4)
        self.q, self.k, self.v, self.cotangent = (jax.random.normal(key, shape, DTYPE.value) for key in keys)
        pos = jnp.arange(length)[None]
        visible = jnp.full((1, length), length)
        self.coords = positions.Coords(pos, pos, visible, jnp.zeros((1, length, 1)), contiguous=True)
        self.mask = masks.causal() if CAUSAL.value else masks.full()
        if WINDOW.value:
            self.mask = self.mask & masks.window(WINDOW.value, 0 if CAUSAL.value else WINDOW.value)
        self.masked = CAUSAL.value or WINDOW.value > 0

    def bias(self, state):
        """Bias [1, H, T, T] of the scheme, or None."""
        return nnx.merge(self.graphdef, state).bias(self.coords.q_pos, self.coords.k_pos) if self.biased else None

    def allowed(self):
        return self.mask.dense(self.length, self.length) if self.masked else None

    def compiled(self, attend, backward: bool) -> Program:
        """`attend(state, q, k, v)`, or its gradients, as one compiled program."""

        def loss(*arguments):
            return jnp.vdot(attend(*arguments).astype(jnp.float32), self.cotangent.astype(jnp.float32))

        arguments = self.state, self.q, self.k, self.v
        run = jax.grad(loss, (0, 1, 2, 3), allow_int=True) if backward else attend
        program = jax.jit(run).lower(*arguments).compile()
        analysis = program.memory_analysis()
        memory = None if analysis is None else analysis.temp_size_in_bytes
        return Program(lambda: jax.block_until_ready(program(*arguments)), memory)


def core(name: str, problem: Problem, backward: bool) -> Program:
    def attend(state, q, k, v):
        position = nnx.merge(problem.graphdef, state)
        return cores.attend(q, k, v, position=position, coords=problem.coords, mask=problem.mask, core=name)

    return problem.compiled(attend, backward)


def jax_nn(problem: Problem, backward: bool) -> Program:
    def attend(state, q, k, v):
        return jax.nn.dot_product_attention(q, k, v, bias=problem.bias(state), mask=problem.allowed())

    return problem.compiled(attend, backward)


def flax_nnx(problem: Problem, backward: bool) -> Program:
    def attend(state, q, k, v):
        return nnx.dot_product_attention(q, k, v, bias=problem.bias(state), mask=problem.allowed())

    return problem.compiled(attend, backward)


def tokamax(problem: Problem, backward: bool) -> Program:
    import tokamax  # type: ignore

    def attend(state, q, k, v):
        return tokamax.dot_product_attention(q, k, v, bias=problem.bias(state), mask=problem.allowed())

    return problem.compiled(attend, backward)


def torch_arrays(problem: Problem, backward: bool, with_bias: bool):
    """Torch tensors: q, k, v and the cotangent, [B, H, T, K], and the bias as a matrix with a gradient, or None."""
    import numpy as np
    import torch

    matrix = 4 * HEADS.value * problem.length**2 * (2 if backward else 1)
    if with_bias and problem.biased and matrix > 1e9 * MEMORY.value:
        raise MemoryError(f'{matrix / 1e9:.0f} GB')
    device = 'cuda' if torch.cuda.is_available() and jax.default_backend() == 'gpu' else 'cpu'

    def tensor(x, needs=backward):
        x = torch.from_numpy(np.array(x, np.float32)).to(device, getattr(torch, DTYPE.value))
        return x.requires_grad_(needs)

    arrays = problem.q, problem.k, problem.v, problem.cotangent
    q, k, v, cotangent = (tensor(jnp.swapaxes(x, 1, 2).astype(jnp.float32)) for x in arrays)
    bias = problem.bias(problem.state) if with_bias else None
    return q, k, v, cotangent.detach(), None if bias is None else tensor(bias), device


def torch_program(attend, leaves, cotangent, device: str) -> Program:
    import torch

    def run():
        with torch.set_grad_enabled(bool(leaves)):
            out = attend()
            result = torch.autograd.grad(out, leaves, cotangent) if leaves else out
        if device == 'cuda':
            torch.cuda.synchronize()
        return result

    return Program(run)


def torch_sdpa(problem: Problem, backward: bool) -> Program:
    """Torch's SDPA. The bias is an input with a matrix as its gradient; gradients of the parameters are not timed."""
    import numpy as np
    import torch

    q, k, v, cotangent, bias, device = torch_arrays(problem, backward, with_bias=True)
    allowed = None if not problem.masked else torch.from_numpy(np.array(problem.allowed())).to(device)

    def attend():
        mask = bias if allowed is None else allowed if bias is None else bias.masked_fill(~allowed, -math.inf)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    leaves = [x for x in (q, k, v, bias) if x is not None] if backward else []
    return torch_program(attend, leaves, cotangent, device)


def torch_flex(problem: Problem, backward: bool) -> Program:
    """Torch's FlexAttention. It reads the bias of a head from a vector over offsets; on CPUs it has no backward
    pass."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if backward and not torch.cuda.is_available():
        raise NotImplementedError('no backward pass on a CPU')
    length = problem.length
    vector: Any = None
    if problem.biased:
        offsets, origin = jnp.arange(1 - length, length)[None], jnp.zeros((1, 1), int)
        position: Any = nnx.merge(problem.graphdef, problem.state)
        vector = position.bias(offsets, origin)
    q, k, v, cotangent, _, device = torch_arrays(problem, backward, with_bias=False)
    table: Any = None if vector is None else torch.tensor(jax.device_get(vector[0, :, :, 0]), device=device)
    if table is not None and backward:
        table.requires_grad_()

    def score(logit, b, h, i, j):
        return logit + table[h, i - j + length - 1]

    def seen(b, h, i, j):
        keep = i >= j if CAUSAL.value else i >= 0
        return keep & (abs(i - j) <= WINDOW.value) if WINDOW.value else keep

    block_mask = create_block_mask(seen, None, None, length, length, device=device) if problem.masked else None
    compiled = torch.compile(flex_attention, dynamic=False)
    attend = functools.partial(compiled, q, k, v, score_mod=None if table is None else score, block_mask=block_mask)
    leaves = [x for x in (q, k, v, table) if x is not None] if backward else []
    return torch_program(attend, leaves, cotangent, device)


def contenders() -> dict[str, Callable[[Problem, bool], Program]]:
    """Functions that make a program, by the contender's name. Peers that are not installed are left out."""
    makers: dict[str, Callable[[Problem, bool], Program]] = {REFERENCE: jax_nn, 'flax.nnx': flax_nnx}
    if importlib.util.find_spec('tokamax'):
        makers['tokamax'] = tokamax
    if importlib.util.find_spec('torch'):
        makers |= {'torch sdpa': torch_sdpa, 'torch flex': torch_flex}
    learned = [name for name in cores.names() if type(cores.make(name)).parameters is not cores.Core.parameters]
    kernels = [] if jax.default_backend() == 'gpu' else ['flash']
    ours = [name for name in cores.names() if name not in (*learned, *kernels)]  # functions of q, k and v
    makers |= {f'mha {name}': functools.partial(core, name) for name in ours}
    chosen = CONTENDERS.value or list(makers)
    return {name: makers[spec.choose(name, tuple(makers), 'contender')] for name in chosen}


def seconds(program: Program) -> float:
    clock = time.time()
    program.run()
    return time.time() - clock


@dataclasses.dataclass
class Result:
    """Times of one contender at one length in one pass, or a note why there are none."""

    times: list[float] = dataclasses.field(default_factory=list)
    memory: int | None = None
    note: str = ''

    @property
    def median(self) -> float:
        return statistics.median(self.times)


def measure(problem: Problem, backward: bool, makers: dict, skipped: dict[str, str], bar) -> dict[str, Result]:
    """Results of all contenders, from at least one round, up to the budget of time and the number of rounds."""
    results, programs = {name: Result(note=skipped.get(name, '')) for name in makers}, {}
    for name, make in makers.items():
        if name in skipped:
            continue
        bar.set_postfix_str(f'{name}, compiling')
        try:
            programs[name] = make(problem, backward)
            results[name].memory = programs[name].memory
            if (memory := results[name].memory or 0) > 1e9 * MEMORY.value:
                raise MemoryError(f'{memory / 1e9:.0f} GB')
            warm = seconds(programs[name])
            if warm > BUDGET.value:  # programs are compiled already, so a single run is a measurement
                results[name].times.append(warm)
                programs.pop(name)
        except Exception as error:  # peers raise all kinds of exceptions for cases that they do not support
            programs.pop(name, None)
            results[name].note = f'{type(error).__name__}: {cli.one_line(error)[:60]}'
    started = time.time()
    for count in range(ROUNDS.value if programs else 0):
        for name, program in programs.items():
            bar.set_postfix_str(f'{name}, round {count + 1} of {ROUNDS.value}')
            results[name].times.append(seconds(program))
        if time.time() - started > BUDGET.value:
            break
    return results


def main() -> None:
    lengths = sorted(int(text) for text in LENGTHS.value if text.strip().isdigit())
    if len(lengths) != len(LENGTHS.value) or not lengths or lengths[0] < 1:
        raise spec.UserError(f'--lengths={",".join(LENGTHS.value)}: expected whole numbers above 0, comma-separated')
    makers = contenders()
    results: dict[tuple[str, int], dict[str, Result]] = {}
    skipped: dict[str, dict[str, str]] = {label: {} for label in PASSES}
    bar = tqdm([(n, label) for n in lengths for label in PASSES], unit=' cases', dynamic_ncols=True)
    for length, label in bar:
        bar.set_description(f'{length} tokens, {label}')
        results[label, length] = measure(Problem(length), label != PASSES[0], makers, skipped[label], bar)
        for name, result in results[label, length].items():
            # A quadratic contender takes four times as long, and as much memory, at twice the length.
            slow = result.times and 4 * result.median > BUDGET.value
            if result.note and not result.times and name not in skipped[label]:
                skipped[label][name] = f'does not run at {length} tokens'
            elif slow:
                skipped[label][name] = f'{result.median:.0f} s at {length} tokens'

    text = report(results, list(makers))
    print(text)
    if OUTPUT.value:
        folder = Path(OUTPUT.value)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'attention.md').write_text(text)
        plot(results, list(makers), folder / 'attention.svg')


def report(results: dict, names: list[str]) -> str:
    """Markdown with the conditions of the measurement and one table per pass."""
    reach = f'windows of {WINDOW.value}' if WINDOW.value else 'all keys'
    direction = 'causal' if CAUSAL.value else 'bidirectional'
    lines = [
        '# Attention: time and memory',
        '',
        f'{jax.devices()[0].device_kind}, {os.cpu_count()} cores; jax {jax.__version__}, flax {flax.__version__}. '
        f'{DTYPE.value}, batch {BATCH_SIZE.value}, {HEADS.value} heads of {HEAD_DIM.value}, position '
        f'{POSITION.value!r}, {direction}, {reach}.',
        f'Median time in ms (how many times as fast as {REFERENCE}; temporary memory in MB).',
    ]
    notes = {}
    for label in PASSES:
        lines += ['', f'## {label}', '', f'| tokens | {" | ".join(names)} |', f'|---{"|---:" * len(names)}|']
        for (pass_, length), by_name in results.items():
            if pass_ != label:
                continue
            cells = []
            for name in names:
                cells.append(cell(by_name[name], by_name.get(REFERENCE)))
                if not by_name[name].times:
                    notes.setdefault((label, name), f'{label}, {name}, from {length} tokens: {by_name[name].note}')
            lines.append(f'| {length} | {" | ".join(cells)} |')
    return '\n'.join([*lines, '', *(f'* {note}' for note in notes.values())]) + '\n'


def cell(result: Result, reference: Result | None) -> str:
    if not result.times:
        return '-'
    extra = []
    if reference is not None and reference.times and reference is not result:
        ratio = statistics.median(b / a for a, b in zip(result.times, reference.times, strict=False))
        extra.append(f'{ratio:.2f}x')
    if result.memory is not None:
        extra.append(f'{result.memory / 1e6:.1f} MB')
    return f'{1000 * result.median:.1f}' + (f' ({"; ".join(extra)})' if extra else '')


def plot(results: dict, names: list[str], path: Path) -> None:
    """Plots time and memory against length, all axes logarithmic."""
    import matplotlib

    matplotlib.use('svg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 7), sharex=True, layout='constrained')
    for column, label in zip(axes.T, PASSES, strict=True):
        cases = sorted((length, by_name) for (pass_, length), by_name in results.items() if pass_ == label)
        for name in names:
            known = [(n, by_name[name]) for n, by_name in cases if by_name[name].times]
            times = [(n, 1000 * result.median) for n, result in known]
            memory = [(n, result.memory / 1e6) for n, result in known if result.memory]
            for axis, points in zip(column, (times, memory), strict=True):
                axis.plot(*(zip(*points, strict=True) if points else ((), ())), marker='o', markersize=3, label=name)
                axis.set_xscale('log', base=2)
                axis.set_yscale('log')
        column[0].set_title(label)
        column[1].set_xlabel('tokens')
    axes[0, 0].set_ylabel('ms')
    axes[1, 0].set_ylabel('temporary memory, MB')
    axes[0, 0].legend()
    figure.savefig(path)


if __name__ == '__main__':
    cli.run(main)
