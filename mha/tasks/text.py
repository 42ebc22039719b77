"""Language modelling on the bytes of text files: causal (predict the next byte) or masked (predict hidden bytes).

An example of length l is a crop x_0 .. x_l of the text, drawn uniformly; the model sees l tokens.
  causal:  reads x_0 .. x_{l-1}, answers x_1 .. x_l.
  masked:  reads x_0 .. x_{l-1} with `mask_rate` of the positions replaced by the mask, symbol 256, and answers those
           positions (Devlin et al., 2019, arXiv:1810.04805, with the mask in all of them); never less than one.
Losses are in nats per answered byte; divided by ln 2 they are bits per byte. A uniform guess has ln 256 = 5.55 nats.
Causal examples answer all their bytes, the first from a single byte of context, so short examples are harder.
"""

import copy

import jax
import jax.numpy as jnp

from mha.datasets import text as dataset
from mha.spec import Part, UserError
from mha.tasks.base import Batch, Task


class Text(Task):
    """Bytes of the files that match the glob `text`, by default of the Python standard library's own source. `data` is
    the train split, `held_out().data` the test split (`mha.datasets.text`); `sha256` names the files."""

    inputs = num_classes = 256
    level = 'language'
    metric = 'bits_per_byte'
    alphabet = ''.join(chr(byte) if 32 <= byte < 127 else '·' for byte in range(256))
    baseline_per_position = False

    def __init__(self, text: str = '', mask_rate: Part = 0.15, *, causal: bool = False):
        super().__init__(causal=causal)
        self.mask_rate = mask_rate
        self.sha256 = dataset.prepare(text)
        self.data = jnp.asarray(dataset.read(self.sha256, 'train'))

    def held_out(self) -> 'Text':
        task = copy.copy(self)
        task.data = jnp.asarray(dataset.read(self.sha256, 'test'))
        return task

    @property
    def data_sizes(self):
        return {f'data_{split}_bytes': int(dataset.read(self.sha256, split).size) for split in ('train', 'test')}

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
        draw = jnp.where(valid, draw, 2.0)
        masked = draw <= jnp.maximum(self.mask_rate, draw.min())
        tokens = jnp.where(masked, self.inputs, here)
        return Batch(tokens=tokens, valid=valid, targets=here, loss_mask=masked, metric_mask=masked)
