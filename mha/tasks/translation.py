"""Translation of sentences: a source in, its target out, token by token.

    encoder-decoder   encoder reads  M o n t h ∎        decoder reads  ▶ M o n a t    and answers  M o n a t ∎
    causal            one stack reads  M o n t h ▶ M o n a t                          and answers  M o n a t ∎

A model with a decoder (`model.decoder_layers`) reads source and target side by side (Sutskever et al., 2014,
arXiv:1409.3215; Vaswani et al., 2017, arXiv:1706.03762). With `model.causal=True`, a single stack reads both in one
sequence, the source in both directions with `model.prefix_lm=True` (Raffel et al., 2020, arXiv:1910.10683).

Tokens are bytes, or subwords learned from both languages with `tokens='bpe(1000)'` (`mha.datasets.subwords`).

An example of length l is a pair whose source and target have at most l tokens each, drawn uniformly from all such
pairs. An evaluation takes each test pair at most once, as long as there are enough. Losses are in nats per token of the
target, its end ∎ included. `eval.py --translate` writes whole translations and measures BLEU and chrF.
"""

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mha import datasets
from mha.arguments import REACH
from mha.datasets import subwords
from mha.spec import UserError
from mha.tasks._draws import each_once
from mha.tasks.base import Batch, Task


class Translation(Task):
    """Sentence pairs of `data`, by default English and German (`mha.datasets.pairs`). Symbols are the tokens, an end ∎
    and a beginning of targets ▶, which is never an answer."""

    level = 'language'
    metric = 'bits_per_byte'
    baseline_per_position = False

    def __init__(
        self, data: str = '', data_dir: str = '', strict: bool = False, tokens: str = 'bytes', *, causal: bool = False
    ):
        super().__init__(causal=causal)
        self.corpus = datasets.pairs(data, data_dir, strict)
        self.sha256 = self.corpus.sha256
        self.subwords = subwords.make(tokens, self.corpus)
        self.alphabet = (*self.subwords.printed, '∎', '▶')
        self.end = self.subwords.size
        self.begin = self.end + 1
        self.inputs, self.num_classes = self.end + 2, self.end + 1
        self.halves = self.has_source = self.ragged = not causal
        self.data, self.shortest = self.read('train')

    def read(self, split: datasets.Split) -> tuple[dict[str, Any], int]:
        """Arrays of a split: tokens of all sources and targets [N]; start and size of each [R], and the larger size of
        each pair, by which pairs are sorted; and the smallest of these."""
        columns = self.corpus.read(split)
        if not len(columns['source']):
            raise UserError(f'the data has no {split} example')
        texts = {name: self.subwords.encode_all(text) for name, text in columns.items()}
        sizes = {name: np.diff(text.start) for name, text in texts.items()}
        longer = np.maximum(sizes['source'], sizes['target'])
        order = np.argsort(longer, kind='stable')
        arrays = {'longer': longer[order]}
        for name, text in texts.items():
            arrays |= {name: text.content, f'{name}_start': text.start[:-1][order], f'{name}_size': sizes[name][order]}
        return {name: jnp.asarray(array.astype(np.int32)) for name, array in arrays.items()}, int(longer.min())

    def held_out(self) -> 'Translation':
        task = copy.copy(self)
        task.data, task.shortest = self.read('test')
        task.on_test_data = True
        return task

    @property
    def vocab_size(self):
        """Number of symbols; there is no placeholder."""
        return self.inputs

    @property
    def bytes_per_symbol(self):
        """Size of the text that each class stands for; none for the end."""
        return np.append(self.subwords.bytes_per_token, 0)

    @property
    def stop(self):
        return (self.end,)

    @property
    def gap(self):
        """Text between a source and its target."""
        return '\n'

    def encode(self, text):
        return [*self.tokenize(text), self.begin if self.causal else self.end]

    def decode(self, tokens):
        return self.subwords.decode(token for token in tokens if token < self.end).decode(errors='replace')

    def sentence_pairs(self, split, length=None):
        texts = self.corpus.read(split)
        sizes = (np.diff(self.subwords.encode_all(text).start) for text in texts.values())
        fits = np.maximum(*sizes) <= (REACH if length is None else length)
        decoded = ([text.decode(errors='replace') for text in texts[name]] for name in ('source', 'target'))
        return [pair for pair, fit in zip(zip(*decoded, strict=True), fits, strict=True) if fit]

    def output_length(self, length):
        return length + 1

    def num_tokens(self, length):
        if isinstance(length, int) and length < self.shortest:
            raise UserError(f'length {length} has no pair: the shortest one has a sentence of {self.shortest} tokens')
        return 2 * length + 1 if self.causal else 2 * (length + 1)

    def count(self, length):
        """Number of pairs with at most `length` tokens on each side."""
        return jnp.searchsorted(self.data['longer'], length, side='right')

    def example(self, key, length, max_length):
        return self.pair(jax.random.randint(key, (), 0, self.count(length)), length, max_length)

    def examples(self, keys, length, max_length):
        if not self.on_test_data:
            return super().examples(keys, length, max_length)
        rows = each_once(keys[0], len(keys), self.count(length), len(self.data['longer']))
        return jax.vmap(lambda row: self.pair(row, length, max_length))(rows)

    def pair(self, row: Int[Array, ''], length: Int[Array, ''] | int, max_length: int) -> Batch:
        """Pair in a row of the data, as a model reads it."""
        slot = jnp.arange(max_length + 1)
        (x, x_size), (y, y_size) = (self._sentence(name, row, slot) for name in ('source', 'target'))
        read, answers = jnp.where(slot > 0, jnp.roll(y, 1), self.begin), jnp.where(slot < y_size, y, self.end)
        if self.causal:
            slot = jnp.arange(2 * max_length + 1)
            index = jnp.clip(slot - x_size, 0, max_length)  # in the target
            counts = (slot >= x_size) & (slot <= x_size + y_size)
            tokens = jnp.where(slot < x_size, x[jnp.minimum(slot, max_length)], jnp.where(counts, read[index], 0))
            answers = answers[index]
            # Slots after a short pair may stay valid: no slot that counts sees later ones.
            valid, prefix = slot < 2 * length + 1, slot <= x_size
        else:
            real = slot <= y_size
            tokens = jnp.where(slot < x_size, x, jnp.where(slot == x_size, self.end, 0))
            tokens, answers = jnp.append(tokens, jnp.where(real, read, 0)), jnp.append(jnp.zeros_like(y), answers)
            counts = jnp.append(jnp.zeros_like(real), real)
            valid, prefix = jnp.append(slot <= x_size, real), None
        targets = jnp.where(counts, answers, 0)
        return Batch(tokens, valid, targets, loss_mask=counts, metric_mask=counts, prefix=prefix)

    def _sentence(self, name, row, slot):
        """Tokens of a sentence in its first slots, and their number."""
        content, start = self.data[name], self.data[f'{name}_start'][row]
        return content.at[start + slot].get(mode='clip').astype(jnp.int32), self.data[f'{name}_size'][row]

    def readable(self, example):
        tokens, targets, counts = map(jax.device_get, (example.tokens, example.targets, example.metric_mask))
        stop = self.begin if self.causal else self.end
        source = tokens[: tokens.tolist().index(stop)]
        return self.decode(source.tolist()), self.decode(targets[counts].tolist())
