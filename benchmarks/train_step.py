"""Steps per second of the length-generalisation training step, and its share of the machine's matmul rate.

    python benchmarks/train_step.py [--steps=400] [--config=configs/length_generalization.py]

Runs the program that train.py runs, in the steady state. The share counts the matrix products of forward and backward
pass over real tokens alone, not over padding.
"""
# ruff: noqa: E402

import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import config_flags

from mha import buckets, cli
from mha.experiment import Experiment

CONFIG = config_flags.DEFINE_config_file('config', str(ROOT / 'configs/length_generalization.py'), 'The experiment.')
STEPS = flags.DEFINE_integer('steps', 400, 'Steps to time.', lower_bound=1)
PEER = 6.5
"""Steps/s of the code released with arXiv:2305.16843 on two CPU cores, compilation aside; quoted."""


def main() -> None:
    run = Experiment.build(CONFIG.value.to_dict())
    graphdef, state = run.init()
    started = time.time()
    chunk = run.chunk(graphdef).lower(state, run.task, run.key, jnp.int32(0)).compile()
    compiled = time.time()
    warm = 20
    state, _ = jax.block_until_ready(chunk(state, run.task, run.key, jnp.int32(warm)))
    clock = time.time()
    state, means = jax.block_until_ready(chunk(state, run.task, run.key, jnp.int32(warm + STEPS.value)))
    rate = STEPS.value / (time.time() - clock)

    config, train = run.config['model'], run.config['train']
    chosen = buckets.choose(run.train_lengths, run.task.num_tokens, train['buckets'])
    tokens = [run.task.num_tokens(length) for length in run.train_lengths]
    padded = [run.task.num_tokens(next(b for b in chosen if b >= length)) for length in run.train_lengths]
    flops = (
        sum(matmul_flops(config, count, run.task.num_classes) for count in tokens) / len(tokens) * train['batch_size']
    )
    peak = matmul_rate()
    print(f'device                  {jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}')
    print(f'model                   {config["layers"]} layers, width {config["dim"]}, {config["heads"]} heads')
    print(f'task                    {run.config["task"]}, {config["position"]}, batch {train["batch_size"]}')
    print(
        f'lengths                 {train["lengths"]}, padded to {chosen}: {sum(padded) / sum(tokens) - 1:.1%} padding'
    )
    print(f'compile                 {compiled - started:.1f} s for {len(chosen)} buckets')
    print(f'training step           {rate:.2f} steps/s (mean length {float(means["length"]):.1f})')
    print(f'matmul rate             {peak / 1e9:.0f} GFLOP/s (float32, 2048 x 2048)')
    print(f'share of it             {rate * flops / peak:.0%} ({rate * flops / 1e9:.0f} GFLOP/s)')
    print(f'released code           {PEER} steps/s, quoted, not measured here: {rate / PEER:.1f} times')


def matmul_flops(model: dict, tokens: int, classes: int) -> float:
    """Of one example, forward and backward: 3 times 2 per multiply-add of the forward pass."""
    dim = model['dim']
    inner = model['heads'] * (model['head_dim'] or dim // model['heads'])
    weights = 4 * dim * inner + 2 * dim * (model['mlp_dim'] or 4 * dim)
    per_layer = tokens * weights + 2 * tokens**2 * inner
    return 6 * (model['layers'] * per_layer + tokens * dim * classes)


def matmul_rate() -> float:
    """Floating-point operations per second of a large float32 product."""
    x = jnp.ones((2048, 2048))
    product = jax.jit(lambda x: x @ x)
    jax.block_until_ready(product(x))
    best = 0.0
    for _ in range(5):
        clock = time.time()
        jax.block_until_ready(product(x))
        best = max(best, 2 * 2048**3 / (time.time() - clock))
    return best


if __name__ == '__main__':
    cli.run(main)
