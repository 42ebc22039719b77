"""Tokens per second of greedy generation, with and without the cache of keys and values, beside transformers' GPT-2.

    python benchmarks/decode.py [--lengths=32,128,512] [--position=learned] [--pattern='window(64)']
        [--layers=4 --dim=256 --heads=4]

All continue one token to the given length with a decoder of the same size, batch 1, float32. Compilation is not timed;
rounds alternate, and times are medians. The peer, which has no patterns, is left out where torch or transformers is not
installed (`pip install '.[peers]'`).
"""

import functools
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
from absl import flags
from flax import nnx

from mha import cli, spec
from mha.model import generation
from mha.model.encoder import Encoder

LENGTHS = flags.DEFINE_string('lengths', '32,128,512', 'Numbers of generated tokens.')
POSITION = flags.DEFINE_string('position', 'learned', 'Position scheme; that of GPT-2 by default.')
PATTERN = flags.DEFINE_string('pattern', 'full', 'Attention pattern, such as a window.')
LAYERS = flags.DEFINE_integer('layers', 4, 'Layers.', lower_bound=1)
DIM = flags.DEFINE_integer('dim', 256, 'Width.', lower_bound=1)
HEADS = flags.DEFINE_integer('heads', 4, 'Heads.', lower_bound=1)
ROUNDS = flags.DEFINE_integer('rounds', 3, 'Number of rounds.', lower_bound=1)
SYMBOLS, START = 256, 1


def ours(longest: int) -> dict[str, Callable[[int], object]]:
    model = Encoder(
        vocab_size=SYMBOLS,
        num_classes=SYMBOLS,
        max_len=longest + 1,
        layers=LAYERS.value,
        dim=DIM.value,
        heads=HEADS.value,
        position=POSITION.value,
        pattern=PATTERN.value,
        causal=True,
        norm='pre',
        mlp='gelu',
        init='gpt2',
        tied=True,
        use_bias=True,
        rngs=nnx.Rngs(0),
    )

    def generate(steps: int, cache: bool) -> object:
        return list(generation.stream(model, [[START]], steps, cache=cache, every=steps))

    return {
        'mha, cache': functools.partial(generate, cache=True),
        'mha, no cache': functools.partial(generate, cache=False),
    }


def peer(longest: int) -> dict[str, Callable[[int], object]]:
    if not all(map(importlib.util.find_spec, ('torch', 'transformers'))):
        return {}
    import torch  # pyright: ignore[reportMissingImports]
    from transformers import GPT2Config, GPT2LMHeadModel  # pyright: ignore[reportMissingImports]

    sizes = dict(n_layer=LAYERS.value, n_embd=DIM.value, n_head=HEADS.value, vocab_size=SYMBOLS)
    model = GPT2LMHeadModel(GPT2Config(**sizes, n_positions=longest + 1, bos_token_id=0, eos_token_id=0)).eval()
    prompt = torch.tensor([[START]])

    def generate(steps: int) -> object:
        with torch.no_grad():
            return model.generate(prompt, min_new_tokens=steps, max_new_tokens=steps, do_sample=False, pad_token_id=0)

    return {'transformers, cache': generate}


def main() -> None:
    lengths = spec.lengths(LENGTHS.value, '--lengths')
    contenders = ours(lengths[-1]) | peer(lengths[-1])
    print(f'device  {jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}')
    model = f'{LAYERS.value} layers, width {DIM.value}, {HEADS.value} heads, {POSITION.value}, {PATTERN.value}'
    print(f'model   {model}, batch 1\n')
    print(f'{"tokens/s":20}' + ''.join(f'{length:>10}' for length in lengths))
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for length in lengths:
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for generate in contenders.values():
            generate(length)
        for _ in range(ROUNDS.value):
            for name, generate in contenders.items():
                clock = time.perf_counter()
                generate(length)
                times[name].append(time.perf_counter() - clock)
        for name, took in times.items():
            rates[name].append(length / statistics.median(took))
    for name, found in rates.items():
        print(f'{name:20}' + ''.join(f'{rate:10.1f}' for rate in found))
    for name in [*contenders][1:]:
        ratios = (one / other for one, other in zip(rates['mha, cache'], rates[name], strict=True))
        print(f'cache / {name:12}' + ''.join(f'{ratio:9.2f}x' for ratio in ratios))


if __name__ == '__main__':
    cli.run(main)
