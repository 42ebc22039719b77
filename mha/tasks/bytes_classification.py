"""Classification of files by their bytes, as the text task of Long Range Arena (Tay et al., 2021, arXiv:2011.04006).

    Never again. -> neg        See it twice! -> pos

A directory has one sub-folder of files per class. An example of length l is the first l bytes of one file, drawn
uniformly; shorter files are filled up with blanks.
"""

import jax

from mha.tasks._files import Files


class BytesClassification(Files):
    """Bytes of a file in, its sub-folder of `directory` out; by default, its package in Python's standard library."""

    def __init__(self, directory: str = '', *, causal: bool = False):
        super().__init__(directory, causal=causal)
        self.answers, self.num_classes = self.folders, len(self.folders)

    def output_length(self, length):
        return 1

    def sample(self, key, length, max_length):
        file = jax.random.randint(key, (), 0, self.data['size'].size)
        return self.content(file, max_length), self.data['folder'][file][None]
