"""Data sets: real texts for tasks, prepared as TFDS data sets and read without TensorFlow.

`data` is one string: '' for the default text of the kind, a path, a glob or a directory for files (`files`), otherwise
the name of a TFDS data set (`named`). With `data_dir`, the directory of TFDS data sets, it is always a name. With
`strict`, malformed rows are refused instead of counted.
"""

from mha.arguments import checked
from mha.datasets import catalogues, files, named, standard_library
from mha.datasets.corpus import SPLITS, Corpus, Split, Texts
from mha.datasets.preparation import prepare

__all__ = ['SPLITS', 'Corpus', 'Split', 'Texts', 'documents', 'labelled', 'pairs']


@checked
def documents(data: str = '', data_dir: str = '') -> Corpus:
    """Corpus of documents, by default the source code of Python's standard library."""
    if not data:
        return prepare(standard_library.documents())
    return prepare(files.documents(data) if _files(data, data_dir) else named.source('documents', data, data_dir))


@checked
def labelled(data: str = '', data_dir: str = '', strict: bool = False, text: str = '', label: str = '') -> Corpus:
    """Corpus of labelled texts, by default sentences and their languages. `text` and `label` are the names of their
    columns, by default those of a TFDS data set's own choice, and in files these words."""
    if not data:
        return prepare(catalogues.labelled(), strict)
    if _files(data, data_dir):
        return prepare(files.labelled(data, text or 'text', label or 'label'), strict)
    return prepare(named.source('labelled', data, data_dir, text, label), strict)


@checked
def pairs(data: str = '', data_dir: str = '', strict: bool = False) -> Corpus:
    """Corpus of sentence pairs, by default English and German."""
    if not data:
        return prepare(catalogues.pairs(), strict)
    return prepare(files.pairs(data) if _files(data, data_dir) else named.source('pairs', data, data_dir), strict)


def _files(data: str, data_dir: str) -> bool:
    return not data_dir and files.exist(data)
