"""Corpora: prepared texts of two splits, read without TensorFlow.

There are three kinds, told apart by the fields of their records: documents (`path`, `text`), labelled texts (`text`,
`label`) and sentence pairs (`source`, `target`).
"""

import array
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int64, UInt8

from mha.spec import visible

Split = Literal['train', 'test']
SPLITS: tuple[Split, Split] = ('train', 'test')
RECORDS_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class Texts(Sequence):
    """Texts in a row: text i of R is `content[start[i] : start[i + 1]]`, and `start` is [R + 1]."""

    content: UInt8[np.ndarray, 'N']
    start: Int64[np.ndarray, '_']

    def __len__(self) -> int:
        return len(self.start) - 1

    def __getitem__(self, index: Any) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self.content[self.start[index] : self.start[index + 1]].tobytes()

    @property
    def size(self) -> np.ndarray:
        """Number of bytes of each text [R]."""
        return np.diff(self.start)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Prepared texts. Two corpora are equal if their `sha256` is."""

    sha256: str
    directory: Path = dataclasses.field(compare=False)
    labels: tuple[str, ...] = dataclasses.field(compare=False)
    """Names of the classes, sorted; empty unless texts are labelled."""
    facts: dict[str, Any] = dataclasses.field(compare=False)
    """Sizes, duplicates, malformed rows, split rule, provenance and licence, for the summary of a run."""
    keep: Callable[[Callable[[], Any]], Any] = dataclasses.field(compare=False)
    """Function that reads the directory, and prepares it again if it is damaged (`mha.machine.cache.kept`)."""

    def described(self) -> list[str]:
        """Facts as a few lines for a person."""
        about = {name.removeprefix('data_'): value for name, value in self.facts.items()}
        sizes = [f'{about[f"{split}_examples"]:,} {split} ({about[f"{split}_bytes"]:,} bytes)' for split in SPLITS]
        labels = f', {len(self.labels)} labels' if self.labels else ''
        lines = [
            f'data: {about["provenance"]}; licence {about["licence"]}',
            f'{" and ".join(sizes)}{labels}: {about["split"]}',
        ]
        if 'duplicates_across' in about:
            counts = [f'{about[f"duplicates_{split}"]:,} in {split}' for split in SPLITS]
            lines.append(f'duplicates: {", ".join(counts)}, {about["duplicates_across"]:,} test texts also in train')
        if about['malformed']:
            named = '; '.join(about['malformed_rows'])
            lines.append(f'note: {about["malformed"]:,} malformed rows are left out: {named}')
        if about.get('similar_labels'):
            lines.append(f'note: labels that differ only in case: {", ".join(about["similar_labels"])}')
        return [visible(line) for line in lines]

    def read(self, split: Split) -> dict[str, Any]:
        """Columns of a split: `Texts` per field. Labels are indices [R] of `labels`. A document is one text, however
        many records it has."""
        texts = self.keep(lambda: self._texts(split))
        if 'path' in texts:
            return _joined(**texts)
        if 'label' in texts:
            index = {label.encode(): number for number, label in enumerate(self.labels)}
            return texts | {'label': np.array([index[label] for label in texts['label']], np.int32)}
        return texts

    def _texts(self, split: Split) -> dict[str, Texts]:
        # `Any`, because a decorator hides the signatures of its methods.
        builder: Any = tfds.builder_from_directory(self.directory)
        columns = {name: (bytearray(), array.array('q', [0])) for name in builder.info.features}
        for record in records(builder, split):
            for name, (content, ends) in columns.items():
                content += record[name]
                ends.append(len(content))
        return {
            name: Texts(np.frombuffer(content, np.uint8), np.frombuffer(ends, np.int64))
            for name, (content, ends) in columns.items()
        }


def records(builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """Records of a split, or of a slice such as `'train[:10%]'`, in their order."""
    if not builder.info.splits[split].num_examples:  # TFDS opens no empty file
        return
    source = builder.as_data_source(split)
    for first in range(0, len(source), RECORDS_AT_ONCE):
        for record in source.__getitems__(range(first, min(first + RECORDS_AT_ONCE, len(source)))):
            if any(value is None for value in record.values()):
                raise ValueError('a record is missing')
            yield record


def _joined(path: Texts, text: Texts) -> dict[str, Texts]:
    """Documents whose consecutive records have the same path are joined."""
    names = [*path]
    first = [index for index, name in enumerate(names) if index == 0 or name != names[index - 1]]
    return {'path': packed(names[index] for index in first), 'text': Texts(text.content, text.start[[*first, -1]])}


def packed(texts: Iterable[bytes]) -> Texts:
    """`Texts` of a sequence of texts."""
    texts = [*texts]
    return Texts(np.frombuffer(b''.join(texts), np.uint8), np.cumsum([0, *map(len, texts)], dtype=np.int64))
