"""Retrieval of documents by their bytes, as in Long Range Arena (Tay et al., 2021, arXiv:2011.04006): are two related?

    import email | import smtplib -> related        import email | x = 2 * y -> unrelated

A directory has one sub-folder of files per group of related documents; the paper's documents are articles of which one
cites the other. Half of all pairs are two files of one sub-folder, the others of two: sub-folders are drawn uniformly,
and files within them, so that neither document alone says anything. An example of length l has the first l bytes of
each document, then blanks where it is shorter. Sub-folders with a single file in a split take no part in it.

The documents stand side by side, padded to halves of the same size, for a model that encodes them apart.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mha.datasets import text as dataset
from mha.spec import UserError
from mha.tasks._files import Files
from mha.tasks.base import Batch


class BytesRetrieval(Files):
    """Whether two files are from one sub-folder of `directory`, or of Python's standard library: one of its packages.
    For `model.readout='pair'`."""

    num_classes = 2
    answers = ('unrelated', 'related')
    halves = True

    @property
    def vocab_size(self):
        """The input symbols; no placeholder."""
        return self.inputs

    def read(self, split: dataset.Split):
        """Also the first file and the number of files of each sub-folder that has two or more [G]."""
        data = super().read(split)
        _, first, count = np.unique(data['folder'], return_index=True, return_counts=True)
        first, count = first[count > 1], count[count > 1]
        if len(count) < 2:
            raise UserError(
                f'directory must have at least two sub-folders with two {split} files or more - of ten files, in the '
                'order of their paths, the last is for the test'
            )
        return data | {'first': jnp.asarray(first), 'count': jnp.asarray(count)}

    def output_length(self, length):
        return 1

    def num_tokens(self, length):
        return 2 * length

    def example(self, key, length, max_length):
        label_key, folder_key, shift_key, one_key, other_key = jax.random.split(key, 5)
        related = jax.random.bernoulli(label_key)
        first, count = self.data['first'], self.data['count']
        folder = jax.random.randint(folder_key, (), 0, count.size)
        another = (folder + jax.random.randint(shift_key, (), 1, count.size)) % count.size
        one = jax.random.randint(one_key, (), 0, count[folder])
        sibling = (one + jax.random.randint(other_key, (), 1, count[folder])) % count[folder]
        stranger = jax.random.randint(other_key, (), 0, count[another])
        files = first[folder] + one, jnp.where(related, first[folder] + sibling, first[another] + stranger)

        slot = jnp.arange(2 * max_length)
        valid, answers = slot % max_length < length, slot == 0
        return Batch(
            tokens=jnp.where(valid, jnp.concatenate([self.content(file, max_length) for file in files]), 0),
            valid=valid,
            targets=jnp.where(answers, related, 0).astype(jnp.int32),
            loss_mask=answers,
            metric_mask=answers,
        )

    def readable(self, example):
        tokens, valid, targets = map(jax.device_get, (example.tokens, example.valid, example.targets))
        halves = zip(np.split(tokens, 2), np.split(valid, 2), strict=True)
        documents = [''.join(self.vocabulary[symbol] for symbol in half[real].tolist()) for half, real in halves]
        return ' | '.join(documents), self.answers[int(targets[0])]
