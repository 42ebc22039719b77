"""Preparation of corpora: rows of a source become a TFDS data set of two splits, in one pass and in bounded memory.

A `Source` names its files and yields its rows. A corpus is named by its sha256, which depends on the files and not on
their place. Prepared corpora are kept in `mha.machine.cache`; several processes may prepare one at the same time, and
one that is killed leaves nothing that others would read, and the next one removes it.
"""

import array
import collections
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core import splits
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from mha.datasets.corpus import SPLITS, Corpus, Split
from mha.machine import cache, parallel
from mha.spec import UserError

Kind = Literal['documents', 'labelled', 'pairs']
FIELDS = {'documents': ('path', 'text'), 'labelled': ('text', 'label'), 'pairs': ('source', 'target')}
"""Fields of a record, all of them texts."""
FOLD = 10
"""Share of test data: one example, file or byte in `FOLD`."""
SHOWN = 3
"""Number of malformed rows that are named."""


class Row(NamedTuple):
    """Example in a source. Its split is that of its file, or follows from the hash of `key`: examples of one key are
    always in the same split."""

    values: tuple[bytes, bytes]
    key: bytes = b''
    split: Split | None = None


class Malformed(NamedTuple):
    """Row that cannot be used: `'reviews.csv:12'` and what is wrong there."""

    place: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Source:
    """Texts before they are prepared. The records must depend on nothing but `kind`, `settings` and the bytes of
    `files`, by the names that they have in the records."""

    kind: Kind
    files: Mapping[str, Path]
    rows: Callable[[], Iterator[Row | Malformed]]
    split_rule: str
    provenance: str
    licence: str = 'not stated'
    settings: str = ''

    def sha256(self) -> str:
        """Checksum of the corpus. For documents, `sha256sum FILES | sha256sum` prints it for the files in path order,
        run in their common directory; for other kinds, and for documents with settings, a line with the kind and the
        settings comes first."""
        lines = [] if self.kind == 'documents' and not self.settings else [f'{self.kind} {self.settings}\n']
        lines += [f'{digest(path)}  {name}\n' for name, path in self.files.items()]
        return hashlib.sha256(os.fsencode(''.join(lines))).hexdigest()


def digest(path: Path) -> str:
    """Sha256 of a file."""
    try:
        with path.open('rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from error


def split_of(row: Row) -> Split:
    """Split of a row: that of its file, or one of `FOLD` keys is test data."""
    if row.split:
        return row.split
    return 'test' if int.from_bytes(hashlib.sha256(row.key).digest()) % FOLD == 0 else 'train'


def prepare(source: Source, strict: bool = False) -> Corpus:
    """Corpus of a source, prepared unless it is in the cache already. Malformed rows are left out, counted and named in
    the facts, or refused if `strict`."""
    sha256 = source.sha256()
    directory = cache.directory() / source.kind / sha256 / str(TextCorpus.VERSION)
    keep = functools.partial(cache.kept, directory, functools.partial(_build, source, directory))
    facts, labels = keep(functools.partial(_facts, directory))
    rows = '; '.join(facts['data_malformed_rows'])
    if strict and facts['data_malformed']:
        raise UserError(f'{facts["data_malformed"]:,} malformed rows: {rows}')
    if not facts['data_train_examples']:
        raise UserError(f'{source.provenance} has no training example' + (rows and f': {rows}'))
    said = {'split': source.split_rule, 'provenance': source.provenance, 'licence': source.licence}
    return Corpus(sha256, directory, labels, facts | {f'data_{key}': said[key] for key in said}, keep)


def _facts(directory: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    facts: dict[str, Any] = dict(cast(Any, tfds.builder_from_directory(directory).info.metadata))
    return facts, tuple(facts.pop('labels'))


class TextCorpus(FileReaderBuilder):
    """Builder that writes the rows of a source in their order, in one pass and in bounded memory. If the splits or the
    records change, raise the version."""

    VERSION = tfds.core.Version('1.2.0')

    def __init__(self, source: Source, progress: Callable[[int], Any] = lambda size: None, **kwargs: Any):
        self.source, self.progress = source, progress
        super().__init__(file_format='array_record', **kwargs)  # the default format needs TensorFlow

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict({name: tfds.features.Text() for name in FIELDS[self.source.kind]})
        return tfds.core.DatasetInfo(
            builder=self, features=features, metadata=tfds.core.MetadataDict(), disable_shuffling=True
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        templates = {split: self._get_filename_template(split) for split in SPLITS}
        paths = {split: os.fspath(templates[split].sharded_filepath(shard_index=0, num_shards=1)) for split in SPLITS}
        writers = {split: ArrayRecordWriter(path, 'group_size:1') for split, path in paths.items()}
        count, features = _Count(self.source.kind), cast(Any, self.info.features)
        for row in self.source.rows():
            if isinstance(row, Malformed):
                count.reject(row)
                continue
            split, example = split_of(row), dict(zip(FIELDS[self.source.kind], row.values, strict=True))
            count.add(split, row)
            with _on_disk():
                writers[split].write(features.serialize_example(example))
            self.progress(sum(map(len, row.values)))
        with _on_disk():
            for writer in writers.values():
                writer.close()
        cast(Any, self.info.metadata).update(count.facts())
        self.info.set_splits(
            splits.SplitDict(
                splits.SplitInfo(
                    name=split,
                    shard_lengths=[count.examples[split]],
                    num_bytes=count.bytes[split],
                    filename_template=templates[split],
                )
                for split in SPLITS
            )
        )


@contextlib.contextmanager
def _on_disk() -> Iterator[None]:
    """Context in which errors of an `ArrayRecordWriter`, such as a full disk, are `OSError`s."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error)) from error


class _Count:
    """Facts about rows, counted while they are written. Duplicates are counted by a hash of eight bytes each."""

    def __init__(self, kind: Kind):
        self.kind, self.labels = kind, set()
        self.examples, self.bytes = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0)
        self.hashes = {split: array.array('Q') for split in SPLITS}
        self.malformed, self.named = 0, []

    def reject(self, row: Malformed) -> None:
        self.malformed += 1
        if len(self.named) < SHOWN:
            self.named.append(f'{row.place}: {row.reason}')

    def add(self, split: Split, row: Row) -> None:
        text, label = row.values
        self.examples[split] += 1
        self.bytes[split] += len(label) if self.kind == 'documents' else len(text)
        if self.kind != 'documents':
            self.hashes[split].frombytes(hashlib.blake2b(text, digest_size=8).digest())
        if self.kind == 'labelled':
            self.labels.add(label.decode())

    def facts(self) -> dict[str, Any]:
        sizes = {f'data_{split}_examples': self.examples[split] for split in SPLITS}
        sizes |= {f'data_{split}_bytes': self.bytes[split] for split in SPLITS}
        rows = {'data_malformed': self.malformed, 'data_malformed_rows': self.named}
        return {'labels': sorted(self.labels), **sizes, **self._duplicates(), **rows, **self._similar_labels()}

    def _similar_labels(self) -> dict[str, list[str]]:
        count = collections.Counter(map(str.casefold, self.labels))
        similar = sorted(label for label in self.labels if count[label.casefold()] > 1)
        return {'data_similar_labels': similar} if similar else {}

    def _duplicates(self) -> dict[str, int]:
        if self.kind == 'documents':
            return {}
        hashes = {split: np.frombuffer(self.hashes[split], np.uint64) for split in SPLITS}
        distinct = {split: np.unique(hashes[split]) for split in SPLITS}
        within = {f'data_duplicates_{split}': len(hashes[split]) - len(distinct[split]) for split in SPLITS}
        return within | {'data_duplicates_across': int(np.isin(hashes['test'], distinct['train']).sum())}


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """New directory in the cache, removed at the end. Those that killed processes have left are removed first: a living
    process has a lock on its own. One process at a time looks for them, as a new directory has no lock yet."""
    root = cache.directory()
    with contextlib.ExitStack() as stack:
        with _opened(root, os.O_RDONLY) as turn:
            for left in root.glob('preparing-*/') if _lock(turn, fcntl.LOCK_EX) else ():
                with contextlib.suppress(OSError), _opened(left / 'lock', os.O_RDWR | os.O_CREAT) as lock:
                    if _lock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
                        shutil.rmtree(left)
            directory = stack.enter_context(tempfile.TemporaryDirectory(dir=root, prefix='preparing-'))
            _lock(stack.enter_context(_opened(Path(directory, 'lock'), os.O_RDWR | os.O_CREAT)), fcntl.LOCK_EX)
        yield directory


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Descriptor of a file or a directory, closed at the end."""
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, operation: int) -> bool:
    """Whether this process has the lock on a file now; False also on a file system without locks."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError:
        return False
    return True


def _build(source: Source, directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (
        parallel.progress(unit='B', unit_scale=True, desc='prepare', delay=1, file=sys.stderr, leave=False) as bar,
        _scratch() as scratch,
    ):
        noise = io.StringIO()
        with contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):  # TFDS's notes
            builder = TextCorpus(source, bar.update, data_dir=scratch)
            builder.download_and_prepare()
        try:
            os.rename(builder.data_dir, directory)
        except OSError:
            if not directory.exists():  # otherwise another process was faster, with the same bytes
                raise
