"""Copying (Kazemnejad et al., 2023, arXiv:2305.19466): repeat the tokens of the prompt, once or twice.

    rsc, one token:        7 7 7 >                        7 7 7 .           doubled  7 7 7 7 7 7 .
    rdc, replace a token:  replace 7 with 4 in 7 7 7 >    4 4 4 .
    cmc, random tokens:    31 4 15 >                      31 4 15 .         doubled  31 4 15 | 31 4 15 .

Published: trained on lengths up to 20, tested on 21 to 40; length is the number of tokens.

Huang et al. (2024, arXiv:2410.02140) copy strings of distinct tokens, and strings of two tokens; `$` begins a sequence.
Published: trained on lengths up to 50, tested on 51 to 150.

    copying(symbols=150, distinct=True, bos=True)    $ 31 4 15 >      31 4 15 .
    copying(symbols=2, bos=True)                     $0111>           0111.

Jelassi et al. (2024, arXiv:2402.01032) test whether a model copies by looking up n-grams: with `duplicate=n`, an n-gram
of the prompt is written over another one, so that what follows it is ambiguous. Prompts below 2 n tokens stay the same.
Published: 26 letters.

    copying(duplicate=2)                             31 4 15 9 31 4 26 >     31 4 15 9 31 4 26 .
"""

from typing import Literal

import jax
import jax.numpy as jnp

from mha.arguments import Several, Shift
from mha.tasks import _draws
from mha.tasks.base import EMPTY, Sequence


class Copying(Sequence):
    """Prompt of tokens 0 .. symbols - 1 in, its copy out; with `doubled=True`, the copy twice. With `distinct=True` no
    token of a cmc prompt occurs twice, so the longest length is `symbols`; with `duplicate=n`, n adjacent ones do."""

    level = 'context-sensitive'

    def __init__(
        self,
        kind: Literal['rsc', 'rdc', 'cmc'] = 'cmc',
        doubled: bool = False,
        symbols: Several = 100,
        distinct: bool = False,
        bos: bool = False,
        duplicate: Shift = 0,
        *,
        causal: bool = False,
    ):
        if kind == 'rdc' and doubled:
            raise ValueError("doubled must be False for kind='rdc', not True")
        if distinct and kind != 'cmc':
            raise ValueError(f'distinct must be False for kind={kind!r}, not True')
        if duplicate and (distinct or kind != 'cmc'):
            raise ValueError(f"duplicate must be 0 unless kind='cmc' and distinct=False, not {duplicate}")
        marks = {'rsc': (), 'rdc': ('replace', 'with', 'in'), 'cmc': ('|',) * doubled}[kind]
        self.kind, self.doubled, self.symbols, self.distinct = kind, doubled, symbols, distinct
        self.duplicate = duplicate
        self.alphabet = (*map(str, range(symbols)), '>', '.', *marks)
        super().__init__(bos=bos, causal=causal)

    def prompt_length(self, length):
        return length + 1 + 5 * (self.kind == 'rdc')

    def output_length(self, length):
        return (1 + self.doubled) * length + 1 + (self.kind == 'cmc' and self.doubled)

    def sample(self, key, length, max_length):
        real = jnp.arange(max_length) < length
        if self.kind == 'cmc':
            if self.distinct:
                tokens = _draws.distinct(key, self.symbols, max_length)
            else:
                tokens = jax.random.randint(key, (max_length,), 0, self.symbols)
            if self.duplicate:
                tokens = _draws.duplicated(jax.random.fold_in(key, 1), tokens, length, self.duplicate)
            tokens = jnp.where(real, tokens, EMPTY)
            answer = (tokens, '|', tokens) if self.doubled else (tokens,)
            return self.concat(tokens, '>'), self.concat(*answer, '.')
        one_key, other_key = jax.random.split(key)
        one = jax.random.randint(one_key, (1,), 0, self.symbols)
        tokens = jnp.where(real, jnp.broadcast_to(one, real.shape), EMPTY)
        if self.kind == 'rsc':
            return self.concat(tokens, '>'), self.concat(*[tokens] * (1 + self.doubled), '.')
        other = (one + jax.random.randint(other_key, (1,), 1, self.symbols)) % self.symbols
        prompt = self.concat('replace', one, 'with', other, 'in', tokens, '>')
        return prompt, self.concat(jnp.where(real, jnp.broadcast_to(other, real.shape), EMPTY), '.')
