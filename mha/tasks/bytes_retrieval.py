"""Retrieval of documents by their bytes, as in Long Range Arena (Tay et al., 2021, arXiv:2011.04006): are two related?

    import email | import smtplib -> related        import email | x = 2 * y -> unrelated

A directory has one sub-folder of files per group of related documents; in the paper, related documents are articles of
which one cites the other. Half of all pairs are two files of one sub-folder, the other half are files of two
sub-folders. Sub-folders are drawn uniformly, then files within them, so that a single document does not reveal the
answer. An example of length l has the first l bytes of each document; shorter documents are filled up with blanks.
Sub-folders with only one file in a split are not used in that split.

The two documents are padded to the same size and stand side by side, for a model that encodes them separately.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mha import datasets
from mha.spec import UserError
from mha.tasks._files import Files
from mha.tasks.base import Batch


class BytesRetrieval(Files):
    """Bytes of two files in, one answer out: whether both are from one sub-folder of `directory`, by default one
    package of Python's standard library. For `model.readout='pair'`."""

    num_classes = 2
    answers = ('unrelated', 'related')
    halves = True

    @property
    def vocab_size(self):
        """Number of input symbols; there is no placeholder."""
        return self.inputs

    def read(self, split: datasets.Split):
        """Arrays of `Files.read`, and the first file and the number of files of each sub-folder with two or more
        [G]."""
        data = super().read(split)
        _, first, count = np.unique(data['folder'], return_index=True, return_counts=True)
        first, count = first[count > 1], count[count > 1]
        if len(count) < 2:
            raise UserError(
                f'directory must have at least two sub-folders with two {split} files or more - in the order of their '
                'paths, every tenth file is a test file'
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
