"""Parameters of every position scheme, and the time of a forward pass beside that of the same encoder without one.

    python benchmarks/schemes.py [--length=512] [--batch_size=4] [--schemes='one, two(argument=value)|three']

The encoder has its default sizes; attention is bidirectional, or causal if a scheme requires it. Passes with and
without the scheme alternate, so that other load on the machine affects both equally. The ratio is the median over such
pairs.
"""
# ruff: noqa: E402

import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import flax
import jax
from absl import flags
from flax import nnx
from tqdm import tqdm

from mha import cli, positions, spec
from mha.machine import cache
from mha.model.encoder import Encoder
from mha.views.catalogue import prose
from mha.views.catalogue import schemes as catalogue

LENGTH = flags.DEFINE_integer('length', 512, 'Tokens per example.', lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer('batch_size', 2, 'Examples per pass.', lower_bound=1)
REPEATS = flags.DEFINE_integer('repeats', 7, 'Passes to time.', lower_bound=1)
SCHEMES = flags.DEFINE_string('schemes', None, 'Comma-separated specs; default: every scheme.')
SYMBOLS = 32
DIRECTION = {False: 'bidirectional', True: 'causal'}


def main() -> None:
    cache.keep_programs()
    texts = spec.split(SCHEMES.value) if SCHEMES.value else [positions.example(name) for name in positions.names()]
    sizes = dataclasses.replace(catalogue.DIMS, max_len=LENGTH.value)
    entries = [catalogue.look(text, sizes) for text in texts]  # wrong specs are reported before any work
    plain = {causal: forward(causal=causal) for causal in {entry.dims.causal for entry in entries}}
    rows, base = [], {causal: [] for causal in plain}
    for entry in (bar := tqdm(entries, unit=' schemes', desc='time', dynamic_ncols=True)):
        bar.set_postfix_str(entry.text)
        scheme_pass, plain_pass = forward(position=entry.text, causal=entry.dims.causal), plain[entry.dims.causal]
        pairs = [(seconds(scheme_pass), seconds(plain_pass)) for _ in range(REPEATS.value)]
        rows.append((statistics.median(a / b for a, b in pairs), statistics.median(a for a, _ in pairs), entry))
        base[entry.dims.causal] += [b for _, b in pairs]

    model = nnx.eval_shape(lambda: encoder())
    print(f'device      {jax.devices()[0].device_kind}, {os.cpu_count()} cores')
    print(f'versions    jax {jax.__version__}, flax {flax.__version__}, Python {sys.version.split()[0]}')
    print(f'model       {len(model.blocks)} layers, width {sizes.dim}, {sizes.heads} heads, float32')
    print(f'input       {BATCH_SIZE.value} examples of {LENGTH.value} tokens; median of {REPEATS.value} passes')
    for causal, durations in sorted(base.items()):
        print(f'no scheme   {1000 * statistics.median(durations):.1f} ms {DIRECTION[causal]}')
    cells = [
        [entry.text, f'{entry.count:,}', DIRECTION[entry.dims.causal], f'{1000 * duration:.1f}', f'{ratio:.2f}']
        for ratio, duration, entry in sorted(rows, key=lambda row: row[:2])
    ]
    header = ['scheme', 'parameters', 'attention', 'ms per pass', 'ratio']
    print('', *prose.aligned([header, *cells], right=(1, 3, 4)), sep='\n')


def encoder(**options) -> Encoder:
    return Encoder(vocab_size=SYMBOLS, num_classes=SYMBOLS, max_len=LENGTH.value, rngs=nnx.Rngs(0), **options)


def forward(**options) -> Callable[[], jax.Array]:
    """Compiled pass of an encoder over random tokens, run once to warm up."""
    graphdef, state = nnx.split(encoder(**options))
    key = jax.random.key(0)
    tokens = jax.random.randint(key, (BATCH_SIZE.value, LENGTH.value), 0, SYMBOLS)
    run = jax.jit(lambda state, tokens, key: nnx.merge(graphdef, state)(tokens, rngs=nnx.Rngs(position=key)))
    compiled = run.lower(state, tokens, key).compile()
    jax.block_until_ready(compiled(state, tokens, key))
    return lambda: compiled(state, tokens, key)


def seconds(run: Callable[[], jax.Array]) -> float:
    clock = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - clock


if __name__ == '__main__':
    cli.run(main)
