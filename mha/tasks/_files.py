"""Base class of tasks on the bytes of the files in the sub-folders of a directory."""

import copy
import glob
import os
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mha import datasets
from mha.spec import UserError
from mha.tasks.base import Task


class Files(Task):
    """Task on the files of `directory`, by default those of the packages of Python's standard library. `data` is the
    train split, `held_out().data` the test split (`mha.datasets.files.documents`). Symbol 256 is a blank."""

    level = 'language'
    inputs = 257
    alphabet = (*(chr(byte) if 32 <= byte < 127 else '·' for byte in range(256)), '')

    def __init__(self, directory: str = '', *, causal: bool = False):
        super().__init__(causal=causal)
        self.corpus = datasets.documents(os.path.join(glob.escape(directory), '*', '**') if directory else '')
        self.sha256 = self.corpus.sha256
        paths = [path for split in datasets.SPLITS for path in self.corpus.read(split)['path']]
        self.folders = tuple(sorted({_folder(path) for path in paths if b'/' in path}))
        if len(self.folders) < 2:
            raise UserError(f'directory must have at least two sub-folders with files: {directory!r}')
        self.data = self.read('train')

    def read(self, split: datasets.Split) -> dict[str, Any]:
        """Arrays of a split: the bytes of all files [N]; the start, size and sub-folder number of each file [F]."""
        columns = self.corpus.read(split)
        files = [(path, text) for path, text in zip(columns['path'], columns['text'], strict=True) if b'/' in path]
        size = np.array([len(text) for _, text in files])
        folder = [self.folders.index(_folder(path)) for path, _ in files]
        text = np.frombuffer(b''.join(text for _, text in files), np.uint8)
        arrays = dict(text=text, start=np.cumsum(size) - size, size=size, folder=folder)
        return {name: jnp.asarray(array) for name, array in arrays.items()}

    def held_out(self) -> 'Files':
        task = copy.copy(self)
        task.data = self.read('test')
        return task

    def content(self, file: Int[Array, ''], max_length: int) -> Int[Array, '{max_length}']:
        """First `max_length` bytes of a file, filled up with blanks."""
        slot = jnp.arange(max_length)
        read = self.data['text'].at[self.data['start'][file] + slot].get(mode='clip').astype(jnp.int32)
        return jnp.where(slot < self.data['size'][file], read, self.inputs - 1)


def _folder(path: bytes) -> str:
    return os.fsdecode(path).split('/')[0]
