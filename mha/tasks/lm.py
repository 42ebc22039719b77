"""Language modelling: causal (predict the next token) or masked (predict hidden tokens); tokens are bytes or subwords.

An example of length l is a crop x_0 .. x_l of the text, drawn uniformly; the model sees l tokens.
  causal:  reads x_0 .. x_{l-1}, answers x_1 .. x_l.
  masked:  reads x_0 .. x_{l-1} with `mask_rate` of the positions replaced by the mask, the last symbol, and answers
           those positions, never less than one. With `replaced='bert'`, 80 % of them are replaced by the mask, 10 % by
           a random token, and 10 % stay (Devlin et al., 2019, arXiv:1810.04805); with `whole_words=True`, all tokens of
           a word are chosen or none. A word is a run of letters, digits, underscores and bytes outside ASCII.
With `documents='packed'`, a row of l tokens holds whole documents one after the other, up to the cuts at its ends. No
token sees another document, and positions restart in each, unless `restart_positions=False`. The last token of a
document has no next one to predict; a symbol between documents would give the model one symbol more than without
packing.

Losses are in nats per answered token. Bits per byte, the loss of a text divided by its size and ln 2, do not depend on
the tokens; a uniform guess of bytes has 8. Causal examples answer all their tokens, the first from a single one of
context, so short examples are harder.

With `scored=s`, an evaluation scores the same tokens at every length (Press et al., 2022, arXiv:2108.12409): s tokens
at a place that depends on the example, but not on the length l. They are the last ones of the example, as in a sliding
window of l tokens that moves by s; each then has l - s tokens of context or more. With `window='segments'`, they begin
at a random multiple of s in the example, as in a text that is cut into segments of l tokens; the first ones of a
segment have little context. For this the held-out text is a circle: its first token follows the last one.
"""

import copy
import functools
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mha import datasets
from mha.arguments import REACH, Part, at_least
from mha.datasets import subwords
from mha.spec import UserError
from mha.tasks._packing import Row, documents_of, packed_row
from mha.tasks.base import Batch, Task


class Lm(Task):
    """Tokens of the documents that `data` names (`mha.datasets`), by default of the source code of Python's standard
    library. They are 'bytes', or subwords such as 'bpe(4096)'. The field `data` of a task is the train split,
    `held_out().data` the test split."""

    level = 'language'
    metric = 'bits_per_byte'
    baseline_per_position = False

    def __init__(
        self,
        data: str = '',
        mask_rate: Part = 0.15,
        replaced: Literal['mask', 'bert'] = 'mask',
        whole_words: bool = False,
        documents: Literal['joined', 'packed'] = 'joined',
        restart_positions: bool = True,
        scored: Annotated[int, at_least(0)] = 0,
        window: Literal['sliding', 'segments'] = 'sliding',
        data_dir: str = '',
        tokens: str = 'bytes',
        *,
        causal: bool = False,
    ):
        super().__init__(causal=causal)
        self.mask_rate, self.replaced, self.whole_words = mask_rate, replaced, whole_words
        self.scored, self.window, self.same_examples = scored, window, scored > 0
        self.shortest = max(scored, 1)
        self.documents, self.restart_positions = documents, restart_positions
        if scored and documents == 'packed':
            raise UserError("scored tokens have a place in one long text - set documents='joined'")
        if scored and not causal:
            raise UserError('scored tokens are for causal models, which have a last one - set model.causal=True')
        self.corpus = datasets.documents(data, data_dir)
        self.sha256 = self.corpus.sha256
        self.subwords = subwords.make(tokens, self.corpus)
        self.inputs = self.num_classes = self.subwords.size

    @functools.cached_property
    def data(self) -> Any:
        """Arrays of a split, read when they are first used: an evaluation needs the test split alone."""
        return self._read('test' if self.on_test_data else 'train')

    @property
    def alphabet(self):
        return self.subwords.printed

    def held_out(self) -> 'Lm':
        task = copy.copy(self)
        task.on_test_data = True
        vars(task).pop('data', None)
        return task

    @property
    def gap(self):
        return ''

    @property
    def stop(self):
        return self.subwords.stop

    def _read(self, split: datasets.Split) -> Any:
        """Arrays of a split: the tokens of all documents in a row, and where each begins if they are packed."""
        tokens = self.subwords.encode_all(self.corpus.read(split)['text'])
        content = tokens.content.astype(np.min_scalar_type(self.inputs - 1), copy=False)
        with jax.ensure_compile_time_eval():  # also if the first use is in a traced function
            if self.documents == 'packed':
                return documents_of(content, tokens.start, split)
            return jnp.asarray(content)

    def encode(self, text):
        if not self.causal:
            told = 'a masked language model fills in hidden tokens'
            raise UserError(f'{told} - set model.causal=True to train one that continues text')
        return self.tokenize(text)

    def decode(self, tokens):
        return self.subwords.decode(tokens).decode(errors='replace')

    def output_length(self, length):
        return length

    def num_tokens(self, length):
        return length

    def example(self, key, length, max_length):
        row_key, mask_key = jax.random.split(key)
        row = self._row(row_key, length, max_length)
        slot = jnp.arange(max_length)
        valid = slot < length
        here = jnp.where(valid, row.here, 0)
        apart: dict[str, Any] = dict(segments=row.segments, pos=row.pos if self.restart_positions else None)
        if self.causal:
            asked = valid & row.asked
            after = jnp.where(valid if row.segments is None else asked, row.after, 0)
            return Batch(tokens=here, valid=valid, targets=after, loss_mask=asked, metric_mask=asked, **apart)
        # One key per position, so that a draw does not depend on the padding.
        draw = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(mask_key, i)))(slot)
        if self.whole_words:
            draw = draw[self._first_of_word(here, row.segments)]
        draw = jnp.where(valid, draw, 2.0)
        masked = draw <= jnp.maximum(self.mask_rate, draw.min())
        tokens = jnp.where(masked, self._instead(mask_key, here), here)
        return Batch(tokens=tokens, valid=valid, targets=here, loss_mask=masked, metric_mask=masked, **apart)

    def _row(self, key, length, max_length) -> Row:
        if self.documents == 'packed':
            return packed_row(self.data, key, max_length)
        if self.data.size <= max_length:
            split = 'test' if self.on_test_data else 'train'
            raise UserError(
                f'length {max_length} needs more tokens of text than the {self.data.size} of the {split} split'
            )
        if self.scored and self.on_test_data:
            return self._placed(key, length, max_length)
        start = jax.random.randint(key, (), 0, self.data.size - length)
        # Clipping reaches padding only; `dynamic_slice` would move the start instead.
        crop = self.data.at[start + jnp.arange(max_length + 1)].get(mode='clip').astype(jnp.int32)
        return Row(crop[:-1], crop[1:])

    def _placed(self, key, length, max_length) -> Row:
        """Row in which only `scored` tokens are asked, those at a place of the text that the key determines."""
        place_key, window_key = jax.random.split(key)
        place = jax.random.randint(place_key, (), 0, self.data.size)
        first = length - self.scored
        if self.window == 'segments':
            first = jax.random.randint(window_key, (), 0, length // self.scored) * self.scored
        slot = jnp.arange(max_length + 1)
        text = self.data[(place - first + slot) % self.data.size].astype(jnp.int32)
        asked = (slot >= first) & (slot < first + self.scored)
        return Row(text[:-1], text[1:], asked[:-1])

    def _instead(self, key, here):
        """Tokens that replace those that are to be answered."""
        if self.replaced == 'mask':
            return self.inputs

        key = jax.random.fold_in(key, REACH)  # no slot, so that these draws are new

        def one(slot):
            for_kind, for_byte = jax.random.split(jax.random.fold_in(key, slot))
            return jax.random.uniform(for_kind), jax.random.randint(for_byte, (), 0, self.inputs)

        kind, byte = jax.vmap(one)(jnp.arange(here.size))
        return jnp.where(kind < 0.8, self.inputs, jnp.where(kind < 0.9, byte, here))

    def _first_of_word(self, text: Int[Array, 'T'], segments: Int[Array, 'T'] | None) -> Int[Array, 'T']:
        """Slot of the first token of each token's word; its own slot outside of words."""
        edges = [(_in_word(token[:1]), _in_word(token[-1:])) for token in self.subwords.tokens]
        begins_inside, ends_inside = jnp.array(edges).T
        begins = ~begins_inside[text] | ~jnp.roll(ends_inside[text], 1)
        if segments is not None:
            begins |= segments != jnp.roll(segments, 1)
        slot = jnp.arange(text.size)
        return jax.lax.cummax(jnp.where(begins, slot, 0))


def _in_word(byte: bytes) -> bool:
    return byte.isalnum() or byte == b'_' or byte >= b'\x80'
