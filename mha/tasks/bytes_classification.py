"""Classification of files by their bytes, as the text task of Long Range Arena (Tay et al., 2021, arXiv:2011.04006).

    Never again. -> neg        See it twice! -> pos

A directory has one sub-folder of files per class. An example of length l is one file, drawn uniformly: its first l
bytes, then blanks where it is shorter.
"""

import copy
import glob
import os

import jax
import jax.numpy as jnp
import numpy as np

from mha.datasets import text as dataset
from mha.spec import UserError
from mha.tasks.base import Task


class BytesClassification(Task):
    """The sub-folder of `directory` that a file is from; by default, the package of Python's standard library. `data`
    is the train split, `held_out().data` the test split (`mha.datasets.text`); `sha256` names the files."""

    level = 'language'
    inputs = 257
    alphabet = (*(chr(byte) if 32 <= byte < 127 else '·' for byte in range(256)), '')

    def __init__(self, directory: str = '', *, causal: bool = False):
        super().__init__(causal=causal)
        self.sha256 = dataset.prepare(os.path.join(glob.escape(directory), '*', '**') if directory else '')
        paths = [path for split in ('train', 'test') for path in dataset.read_files(self.sha256, split)]
        self.answers = tuple(sorted({path.split('/')[0] for path in paths if '/' in path}))
        if len(self.answers) < 2:
            raise UserError(f'directory must have at least two sub-folders with files, one per class: {directory!r}')
        self.num_classes = len(self.answers)
        self.data = self.read('train')

    def read(self, split: dataset.Split) -> dict[str, jax.Array]:
        """The bytes of all files [N], and where each file starts, its size and its class [F]."""
        files = {path: content for path, content in dataset.read_files(self.sha256, split).items() if '/' in path}
        size = np.array([content.size for content in files.values()])
        label = [self.answers.index(path.split('/')[0]) for path in files]
        arrays = dict(text=np.concatenate(list(files.values())), start=np.cumsum(size) - size, size=size, label=label)
        return {name: jnp.asarray(array) for name, array in arrays.items()}

    def held_out(self) -> 'BytesClassification':
        task = copy.copy(self)
        task.data = self.read('test')
        return task

    def output_length(self, length):
        return 1

    def sample(self, key, length, max_length):
        file = jax.random.randint(key, (), 0, self.data['size'].size)
        slot = jnp.arange(max_length)
        read = self.data['text'].at[self.data['start'][file] + slot].get(mode='clip').astype(jnp.int32)
        return jnp.where(slot < self.data['size'][file], read, self.inputs - 1), self.data['label'][file][None]
