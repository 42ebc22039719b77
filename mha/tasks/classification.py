"""Classification of texts: a text in, its label out, from the mean over its tokens (`model.readout='pooled'`).

    Bitte geben Sie eine gültige E-Mail-Adresse ein. -> de

An example of length l is a text of the train split, drawn uniformly with replacement and cut to its first l tokens;
shorter texts are padded. Held-out examples are the texts of the test split in random order, so that an
evaluation reads the same ones at all lengths, and none twice per length unless it asks for more than there are.
"""

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mha import datasets
from mha.datasets import subwords
from mha.spec import UserError
from mha.tasks._draws import each_once
from mha.tasks.base import Batch, Task


class Classification(Task):
    """Texts and labels of the files, or the TFDS data set, that `data` names (`mha.datasets`), by default sentences and
    their languages. `text` and `label` are the names of the columns; `strict` refuses malformed rows. Tokens are
    'bytes' or subwords such as 'bpe(4096)'."""

    level = 'language'
    ragged = one_class = same_examples = True

    def __init__(
        self,
        data: str = '',
        data_dir: str = '',
        strict: bool = False,
        tokens: str = 'bytes',
        text: str = '',
        label: str = '',
        *,
        causal: bool = False,
    ):
        super().__init__(causal=causal)
        self.corpus = datasets.labelled(data, data_dir, strict, text, label)
        self.sha256 = self.corpus.sha256
        self.answers, self.num_classes = self.corpus.labels, len(self.corpus.labels)
        if self.num_classes < 2:
            raise UserError(f'classification needs at least two labels, not {self.num_classes}')
        self.subwords = subwords.make(tokens, self.corpus)
        self.inputs = self.subwords.size
        self.data = self._read('train')

    @property
    def alphabet(self) -> list[str]:
        return self.subwords.printed

    @property
    def vocab_size(self) -> int:
        """Number of tokens; there is no placeholder."""
        return self.inputs

    def _read(self, split: datasets.Split) -> dict[str, Any]:
        """Arrays of a split: the tokens of all texts [N]; the start, number of tokens and label of each text [R]."""
        columns = self.corpus.read(split)
        tokens = self.subwords.encode_all(columns['text'])
        size = np.diff(tokens.start)
        arrays = dict(tokens=tokens.content, start=tokens.start[:-1], size=size, label=columns['label'])
        return {name: jnp.asarray(array.astype(np.int32)) for name, array in arrays.items()}

    def held_out(self) -> 'Classification':
        task = copy.copy(self)
        data = self._read('test')
        if not data['size'].size:
            raise UserError('the data has no test example')
        task.data, task.on_test_data = data, True
        return task

    def output_length(self, length):
        return 1

    def num_tokens(self, length):
        return length

    def example(self, key, length, max_length):
        return self._row(jax.random.randint(key, (), 0, self.data['size'].size), length, max_length)

    def examples(self, keys, length, max_length):
        if not self.on_test_data:
            return super().examples(keys, length, max_length)
        texts = self.data['size'].size
        index = each_once(keys[0], len(keys), texts, texts)
        each = 0 if jnp.ndim(length) else None
        return jax.vmap(lambda index, length: self._row(index, length, max_length), (0, each))(index, length)

    def _row(self, index, length, max_length) -> Batch:
        """Text number `index` of the split."""
        slot = jnp.arange(max_length)
        valid = slot < jnp.minimum(length, self.data['size'][index])
        tokens = self.data['tokens'].at[self.data['start'][index] + slot].get(mode='clip')
        answer = slot == 0
        return Batch(
            tokens=jnp.where(valid, tokens, 0),
            valid=valid,
            targets=jnp.where(answer, self.data['label'][index], 0),
            loss_mask=answer,
            metric_mask=answer,
        )

    def decode(self, tokens):
        return self.subwords.decode(tokens).decode(errors='replace')

    def readable(self, example):
        tokens, valid, targets = map(jax.device_get, (example.tokens, example.valid, example.targets))
        return self.decode(tokens[valid].tolist()), self.answers[int(targets[0])]
