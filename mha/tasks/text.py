"""Language modelling on the bytes of text files: causal (predict the next byte) or masked (predict hidden bytes).

An example of length l is a crop x_0 .. x_l of the text, drawn uniformly; the model sees l tokens.
  causal:  reads x_0 .. x_{l-1}, answers x_1 .. x_l.
  masked:  reads x_0 .. x_{l-1} with `mask_rate` of the positions replaced by the mask, symbol 256, and answers those
           positions, never less than one. With `replaced='bert'`, 80 % of them are replaced by the mask, 10 % by a
           random byte, and 10 % stay (Devlin et al., 2019, arXiv:1810.04805); with `whole_words=True`, all bytes of a
           word are chosen or none. A word is a run of letters, digits, underscores and bytes outside ASCII.
Losses are in nats per answered byte; divided by ln 2 they are bits per byte. A uniform guess has ln 256 = 5.55 nats.
Causal examples answer all their bytes, the first from a single byte of context, so short examples are harder.
"""

import copy
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mha import datasets
from mha.spec import REACH, Part, UserError
from mha.tasks.base import Batch, Task


class Text(Task):
    """Bytes of the files that match the glob `text`, by default of the Python standard library's own source. `data` is
    the train split, `held_out().data` the test split (`mha.datasets.files.documents`)."""

    inputs = num_classes = 256
    level = 'language'
    metric = 'bits_per_byte'
    alphabet = ''.join(chr(byte) if 32 <= byte < 127 else '·' for byte in range(256))
    baseline_per_position = False

    def __init__(
        self,
        text: str = '',
        mask_rate: Part = 0.15,
        replaced: Literal['mask', 'bert'] = 'mask',
        whole_words: bool = False,
        *,
        causal: bool = False,
    ):
        super().__init__(causal=causal)
        self.mask_rate, self.replaced, self.whole_words = mask_rate, replaced, whole_words
        self.corpus = datasets.documents(text)
        self.sha256 = self.corpus.sha256
        self.data = self._read('train')

    def held_out(self) -> 'Text':
        task = copy.copy(self)
        task.data = self._read('test')
        return task

    def _read(self, split: datasets.Split):
        return jnp.asarray(self.corpus.read(split)['text'].content)

    def encode(self, text):
        if not self.causal:
            return super().encode(text)
        return [*text.encode()]

    def decode(self, tokens):
        return bytes(tokens).decode(errors='replace')

    def output_length(self, length):
        return length

    def num_tokens(self, length):
        return length

    def example(self, key, length, max_length):
        if self.data.size <= max_length:
            raise UserError(f'length {max_length} needs more bytes of text than the {self.data.size} of this split')
        start_key, mask_key = jax.random.split(key)
        start = jax.random.randint(start_key, (), 0, self.data.size - length)
        # Clipping reaches padding only; `dynamic_slice` would move the start instead.
        crop = self.data.at[start + jnp.arange(max_length + 1)].get(mode='clip').astype(jnp.int32)
        slot = jnp.arange(max_length)
        valid = slot < length
        here, after = jnp.where(valid, crop[:-1], 0), jnp.where(valid, crop[1:], 0)
        if self.causal:
            return Batch(tokens=here, valid=valid, targets=after, loss_mask=valid, metric_mask=valid)
        # One key per position, so that a draw does not depend on the padding.
        draw = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(mask_key, i)))(slot)
        if self.whole_words:
            draw = draw[_first_of_word(here)]
        draw = jnp.where(valid, draw, 2.0)
        masked = draw <= jnp.maximum(self.mask_rate, draw.min())
        tokens = jnp.where(masked, self._instead(mask_key, here), here)
        return Batch(tokens=tokens, valid=valid, targets=here, loss_mask=masked, metric_mask=masked)

    def _instead(self, key, here):
        """Tokens that replace the bytes that are to be answered."""
        if self.replaced == 'mask':
            return self.inputs

        key = jax.random.fold_in(key, REACH)  # no slot, so that these draws are new

        def one(slot):
            for_kind, for_byte = jax.random.split(jax.random.fold_in(key, slot))
            return jax.random.uniform(for_kind), jax.random.randint(for_byte, (), 0, self.inputs)

        kind, byte = jax.vmap(one)(jnp.arange(here.size))
        return jnp.where(kind < 0.8, self.inputs, jnp.where(kind < 0.9, byte, here))


def _first_of_word(text: Int[Array, 'T']) -> Int[Array, 'T']:
    """Slot of the first byte of each byte's word; its own slot outside of words."""
    in_word = jnp.array([chr(byte).isalnum() or byte == ord('_') or byte >= 128 for byte in range(256)])[text]
    begins = ~in_word | ~jnp.roll(in_word, 1)
    slot = jnp.arange(text.size)
    return jax.lax.cummax(jnp.where(begins, slot, 0))
