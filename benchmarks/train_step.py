"""Steps per second of the length-generalisation training step, its share of the machine's matmul rate, and its parts.

    python benchmarks/train_step.py [--steps=400] [--config=configs/length_generalization.py]

Runs the same program as train.py, after warm-up. The share of the matmul rate counts the matrix products of forward and
backward pass over real tokens only, without padding.

Then each part of the step is timed forward and backward as a separate program, at the shapes of each bucket including
padding, and counted as often as it occurs in the step; all layers count like the first. The sum of the parts differs
from the time of the step, because a part runs on one device while the step splits the batch over several, and because
the compiler fuses parts within the step. The parts show where the time goes.
"""
# ruff: noqa: E402

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import jax
import jax.numpy as jnp
import optax
from absl import flags
from flax import nnx
from ml_collections import config_flags

from mha import cli, cores
from mha.machine import parallel
from mha.nn import masks
from mha.nn.dropout import dropout
from mha.positions.base import Coords
from mha.run.build import build
from mha.run.experiment import Experiment, at_once
from mha.training import buckets
from mha.training import step as training

CONFIG = config_flags.DEFINE_config_file('config', str(ROOT / 'configs/length_generalization.py'), 'Experiment.')
STEPS = flags.DEFINE_integer('steps', 400, 'Steps to time.', lower_bound=1)
PEER = 6.5
"""Steps per second of the code released with arXiv:2305.16843 on two CPU cores, without compilation; quoted."""


def main() -> None:
    settings = CONFIG.value.to_dict()
    parallel.use_cores(at_once(settings['train']))
    run = build(settings)
    state = run.init()
    started = time.time()
    chunk = run.chunk()
    compiled = time.time()
    warm = 20
    state, _ = jax.block_until_ready(chunk(state, warm))
    clock = time.time()
    state, means = jax.block_until_ready(chunk(state, warm + STEPS.value))
    rate = STEPS.value / (time.time() - clock)

    config, train = run.config['model'], run.config['train']
    chosen = buckets.choose(run.train_lengths, run.task.num_tokens, train['buckets'])
    bucket_of = {length: next(bucket for bucket in chosen if bucket >= length) for length in run.train_lengths}
    tokens = [run.task.num_tokens(length) for length in run.train_lengths]
    padded = [run.task.num_tokens(bucket_of[length]) for length in run.train_lengths]
    flops = statistics.mean(sum(matmul_flops(run, count).values()) for count in tokens)
    peak = matmul_rate()
    hardware = f'{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {jax.device_count()} devices'
    print(f'device                  {hardware}, jax {jax.__version__}')
    print(f'model                   {config["layers"]} layers, width {config["dim"]}, {config["heads"]} heads')
    print(f'task                    {run.config["task"]}, {config["position"]}, batch {train["batch_size"]}')
    print(
        f'lengths                 {train["lengths"]}, padded to {chosen}: {sum(padded) / sum(tokens) - 1:.1%} padding'
    )
    print(f'compile                 {compiled - started:.1f} s for {len(chosen)} buckets')
    print(f'training step           {rate:.2f} steps/s (mean length {means["length"].item():.1f})')
    print(f'matmul rate             {peak / 1e9:.0f} GFLOP/s (float32, 2048 x 2048)')
    print(f'share of it             {rate * flops / peak:.0%} ({rate * flops / 1e9:.0f} GFLOP/s)')
    print(
        f'released code           {PEER} steps/s for its example, quoted, not measured here: {rate / PEER:.1f} times',
        flush=True,
    )

    took: dict[str, float] = {}
    for bucket in chosen:
        weight = list(bucket_of.values()).count(bucket) / len(bucket_of)
        for name, times, program, arguments in parts(run, bucket):
            took[name] = took.get(name, 0.0) + weight * times * seconds(program, *arguments)
    took['optimizer'] = seconds(*update(run, state))
    counts = [matmul_flops(run, count) for count in padded]
    print(f'\n{"part":24}{"ms a step":>10}{"share":>8}{"of the matmul rate":>20}')
    for name, took_s in took.items():
        work = statistics.mean(each.get(name, 0.0) for each in counts)
        share = f'{work / took_s / peak:.0%}' if work else '-'
        print(f'{name:24}{1e3 * took_s:10.2f}{took_s * rate:8.1%}{share:>20}')
    total = sum(took.values())
    print(f'{"all parts":24}{1e3 * total:10.2f}{total * rate:8.1%}')
    print(f'{"training step":24}{1e3 / rate:10.2f}{1:8.1%}')


def matmul_flops(run: Experiment, tokens: int) -> dict[str, float]:
    """Operations of the matrix products of a step on sequences of `tokens`, by part: forward and backward, 3 times 2
    per multiply-add of the forward pass."""
    model = run.config['model']
    dim, layers = model['dim'], model['layers']
    inner = model['heads'] * (model['head_dim'] or dim // model['heads'])
    forward = {
        'attention: projections': layers * 3 * tokens * dim * inner,
        'attention: core': layers * 2 * tokens**2 * inner,
        'attention: output': layers * tokens * dim * inner,
        'feed-forward': layers * 2 * tokens * dim * (model['mlp_dim'] or 4 * dim),
        'read-out': tokens * dim * run.task.num_classes,
    }
    return {part: 6 * run.config['train']['batch_size'] * count for part, count in forward.items()}


def parts(run: Experiment, length: int) -> Iterator[tuple[str, int, Callable[..., Any], tuple]]:
    """Parts of a step that pads to `length`, as tuples of name, number per step, program and arguments."""
    model, key = run.model(), jax.random.key(0)
    block, scheme = model.blocks[0], model.positions[model.scheme_of_layer[0]]
    layers, settings = len(model.blocks), model.settings
    rate, attention_rate = settings.dropout_rate, settings.attention_dropout_rate

    def data(task, key):
        return task.batch(key, run.config['train']['batch_size'], length, length)

    def positions(scheme, x, key):
        scheme, pos = scheme.place(rows, valid=batch.valid[:1], key=key, train=True)
        return scheme.embed(x, pos)

    def core(scheme, qkv, coords, key):
        options = dict(core=block.attention.core, dropout_rate=attention_rate, rngs=nnx.Rngs(dropout=key))
        return cores.attend(*qkv, position=scheme, coords=coords, mask=mask, **options)

    batch = jax.jit(data)(run.task, key)
    size, tokens = batch.tokens.shape
    slots = jnp.arange(tokens)[None]
    rows = jnp.broadcast_to(slots, (size, tokens)) if scheme.per_example else slots
    placed, pos = scheme.place(rows, valid=batch.valid[:1], key=key, train=True)
    mask = block.mask & masks.padding(batch.valid[:1])
    x = jax.random.normal(key, (size, tokens, model.settings.dim), block.up.dtype)
    contiguous = not scheme.overrides('remap')
    coords = Coords(q_pos=pos, k_pos=pos, visible=mask.count(tokens, tokens), x=x, contiguous=contiguous)
    qkv = block.attention.project(x, x, x)
    logits = jax.random.normal(key, (size, tokens, run.task.num_classes))

    yield 'data', 1, jax.jit(data), (run.task, key)
    yield 'embedding', 1, *differentiated(lambda table, _, tokens: table(tokens), model.embedding, (), batch.tokens)
    yield 'positions', 1, *differentiated(positions, scheme, x, key)
    yield 'attention: projections', layers, *differentiated(lambda layer, x: layer.project(x, x, x), block.attention, x)
    yield 'attention: core', layers, *differentiated(core, placed, qkv, coords, key)
    yield 'attention: output', layers, *differentiated(lambda out, x: out(x), block.attention.out, qkv[0])
    yield 'feed-forward', layers, *differentiated(lambda block, x: block.down(jax.nn.relu(block.up(x))), block, x)
    yield 'norms, residuals', 2 * layers, *differentiated(lambda norm, xy: norm(sum(xy)), block.mlp_norm, (x, x))
    drop = differentiated(lambda _, x, key: dropout(x, rate, nnx.Rngs(dropout=key)), nnx.List([]), x, key)
    yield 'dropout', 2 * layers + 1, *drop
    yield 'read-out', 1, *differentiated(lambda head, x: head(x), model.head, x)
    loss = differentiated(lambda _, logits, batch: training.losses(logits, batch).mean(), nnx.List([]), logits, batch)
    yield 'loss', 1, *loss


def differentiated(function: Callable[..., Any], module: Any, moving: Any, *fixed: Any) -> tuple[Callable, tuple]:
    """Program, and its arguments, that computes `function(module, moving, *fixed)` and its gradients with respect to
    the module's parameters and `moving`."""
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def program(params, rest, moving, fixed):
        out, pull = jax.vjp(lambda p, m: function(nnx.merge(graph, p, rest), m, *fixed), params, moving)
        return pull(out)

    return jax.jit(program), (params, rest, moving, fixed)


def update(run: Experiment, state: training.State) -> tuple[Callable, training.State, Any]:
    """Program of the optimizer's part of a step, with the parameters in place of gradients."""

    def program(state, grads):
        updates, opt_state = run.optimizer().update(grads, state.opt_state, state.params)
        return optax.apply_updates(state.params, updates), opt_state, optax.tree.norm(grads)

    only = jax.tree.map(lambda x: x[0] if x.ndim else x, state)
    return jax.jit(program), only, only.params


def seconds(program: Callable[..., Any], *arguments: Any) -> float:
    """Median time of several runs, without compilation."""
    jax.block_until_ready(program(*arguments))
    took = []
    while len(took) < 5 or (sum(took) < 0.2 and len(took) < 100):
        clock = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        took.append(time.perf_counter() - clock)
    return statistics.median(took)


def matmul_rate() -> float:
    """Floating-point operations per second in a large float32 matrix product."""
    x = jnp.ones((2048, 2048))
    product = jax.jit(lambda x: x @ x)
    return 2 * 2048**3 / seconds(product, x)


if __name__ == '__main__':
    cli.run(main)
