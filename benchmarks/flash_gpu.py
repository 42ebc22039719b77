"""Errors of the flash core on a GPU, and its time beside that of peers.

    python benchmarks/flash_gpu.py [--lengths=1024,4096,16384] [--tokens=16384] [--heads=8] [--width=64]

Needs jax, flax, numpy and jaxtyping. Measures attention alone: bfloat16, causal, in batches of `tokens` tokens in
total. Times are those of one call, the best of three rounds. A forward and backward pass includes gradients of the
scheme's parameters. TFLOP/s count 4 B H T S K operations forward and 2.5 times as many backward, as the authors of
FlashAttention do, and half of each under a causal mask. Peers are `jax.nn.dot_product_attention` by cuDNN, without a
bias or with the bias as a [1, H, T, T] array, and this package's `blockwise`. '-' marks cases that do not run.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
from flax import nnx

from mha import cores
from mha.cores import flash
from mha.nn import masks
from mha.positions import Coords, Dims, make

SCHEMES = ('none', 'rope', 'alibi(learned=True)', 't5')
LARGEST_BIAS = 2**31
"""Largest bias, in bytes, that a peer is given as an array."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--lengths', default='1024,4096,16384')
    parser.add_argument('--tokens', type=int, default=16384)
    parser.add_argument('--heads', type=int, default=8)
    parser.add_argument('--width', type=int, default=64)
    args = parser.parse_args()
    device = jax.devices()[0]
    print(f'{device.device_kind}, jax {jax.__version__}, {args.heads} heads of {args.width}, bfloat16, causal')
    for spec in SCHEMES:
        print(f'{spec:20} largest error over largest value: {errors(spec, args.heads, args.width)}')
    print(f'{"scheme":20} {"length":>7} {"core":>10} {"forward":>20} {"forward + backward":>20}')
    for length in map(int, args.lengths.split(',')):
        batch = max(1, args.tokens // length)
        flops = 4 * batch * args.heads * length**2 * args.width / 2
        for spec in SCHEMES:
            for core in ('flash', 'blockwise', 'cudnn'):
                position = make(
                    spec, Dims(args.heads * args.width, args.heads, args.width, length, True), rngs=nnx.Rngs(0)
                )
                forward, both = programs(core, position, batch, length, args.heads, args.width)
                cells = timed(forward, flops), timed(both, 3.5 * flops)
                print(f'{spec:20} {length:7} {core:>10} {cells[0]:>20} {cells[1]:>20}', flush=True)


def operands(batch, length, heads, width):
    """Random q, k, v and gradient of the output."""
    return [
        jax.random.normal(key, (batch, length, heads, width), jnp.bfloat16)
        for key in jax.random.split(jax.random.key(0), 4)
    ]


def coordinates(batch, length):
    pos, visible = jnp.arange(length)[None], jnp.arange(1, length + 1)[None]
    return Coords(q_pos=pos, k_pos=pos, visible=visible, x=jnp.zeros((batch, length, 1)), contiguous=True)


def programs(core, position, batch, length, heads, width):
    """Two compiled calls without arguments: one returns the output, the other all gradients."""
    graphdef, state = nnx.split(position)
    coords = coordinates(batch, length)

    def attend(state, q, k, v):
        scheme = nnx.merge(graphdef, state)
        if core == 'cudnn':
            bias = scheme.bias(coords.q_pos, coords.k_pos) if 4 * heads * length**2 <= LARGEST_BIAS else None
            q, k = scheme.qk(q, k, coords)
            if bias is None and scheme.overrides('bias'):
                raise ValueError('the bias is too large')
            bias = None if bias is None else bias.astype(q.dtype)
            return jax.nn.dot_product_attention(
                q, k, v, bias, is_causal=True, scale=width**-0.5, implementation='cudnn'
            )
        case = dict(position=scheme, coords=coords, mask=masks.causal())
        reason = flash.refusal(q, k, v, **case) if core == 'flash' else None
        if reason:
            raise ValueError(reason)
        return cores.attend(q, k, v, **case, core=core)

    def pull(do, *arguments):
        return jax.vjp(attend, *arguments)[1](do)

    forward, both = jax.jit(attend), jax.jit(pull)
    *qkv, do = operands(batch, length, heads, width)
    return lambda: forward(state, *qkv), lambda: both(do, state, *qkv)


def errors(spec, heads, width, length=500):
    """Largest errors of output and gradients against the dense core in float32, each over the largest value."""
    position = make(spec, Dims(heads * width, heads, width, length, True), rngs=nnx.Rngs(0))
    try:
        actual = [call() for call in programs('flash', position, 2, length, heads, width)]
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    graphdef, state = nnx.split(position)

    def dense(state, q, k, v):
        scheme, coords = nnx.merge(graphdef, state), coordinates(2, length)
        return cores.attend(q, k, v, position=scheme, coords=coords, mask=masks.causal(), core='dense')

    with jax.default_matmul_precision('highest'):
        *qkv, do = (x.astype(jnp.float32) for x in operands(2, length, heads, width))
        out, pull = jax.vjp(dense, state, *qkv)
        expected = [out, pull(do)]
    worst = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max() / jnp.abs(b).max()), actual, expected)
    return ' '.join(f'{error:.0e}' for error in jax.tree.leaves(worst))


def timed(call, flops):
    """Time of a call as 'milliseconds (TFLOP/s)', or '-' if it does not run."""
    try:
        jax.block_until_ready(call())
    except Exception as error:
        print(f'{type(error).__name__}: {str(error).splitlines()[0]}', file=sys.stderr)
        return '-'
    rounds = []
    for _ in range(3):
        start, calls = time.perf_counter(), 0
        while time.perf_counter() - start < 0.3:
            results = [call() for _ in range(5)]
            jax.block_until_ready(results[-1])
            calls += 5
        rounds.append((time.perf_counter() - start) / calls)
    return f'{1e3 * min(rounds):.2f} ms ({flops / min(rounds) / 1e12:.0f})'


if __name__ == '__main__':
    main()
