"""Text as bytes: files become a TFDS data set with one record per file, prepared once and read without TensorFlow.

In path order, every tenth file is test data and the others are training data. With fewer than ten files, the last tenth
of each file is test data. A data set is named by its sha256, which `sha256sum FILES | sha256sum` prints for the files
in path order, run in their common directory. Prepared data is kept in `mha.machine.cache`.
"""

import contextlib
import glob
import hashlib
import io
import os
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from mha.machine import cache
from mha.spec import UserError

Split = Literal['train', 'test']
FOLD = 10
"""Share of test data: one file, or one byte, in `FOLD`."""
NOT_TEXT = {'test', 'tests', 'idlelib', 'lib2to3', 'site-packages', 'dist-packages', '__pycache__'}
"""Directories of the standard library that are not part of the default text."""


class ByteText(tfds.core.GeneratorBasedBuilder):
    """Builder of records `{'path', 'text'}` in path order. If the split or the records change, raise the version."""

    VERSION = tfds.core.Version('1.0.0')

    def __init__(self, files: Mapping[str, bytes], **kwargs: Any):
        self.files = files
        super().__init__(file_format='array_record', **kwargs)  # the default format needs TensorFlow

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Tensor(shape=(None,), dtype=np.uint8, encoding='bytes')
        features = tfds.features.FeaturesDict({'path': tfds.features.Text(), 'text': text})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: Any):
        return {'train': self._generate_examples('train'), 'test': self._generate_examples('test')}

    def _generate_examples(self, split: Split) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, (path, content) in enumerate(self.files.items()):
            cut = len(content) - -(-len(content) // FOLD)
            if len(self.files) < FOLD:
                content = content[:cut] if split == 'train' else content[cut:]
            elif (split == 'test') != (index % FOLD == FOLD - 1):
                continue
            yield index, {'path': os.fsencode(path), 'text': np.frombuffer(content, np.uint8)}


def prepare(text: str = '') -> str:
    """Prepares the files that match the glob pattern `text`, or the source of Python's standard library if `text` is
    empty, unless they are prepared already. Returns the sha256 that names the data set. Several processes may do this
    at once."""
    files = _standard_library() if not text else _matches(text)
    digests = (f'{hashlib.sha256(content).hexdigest()}  {path}\n' for path, content in files.items())
    sha256 = hashlib.sha256(os.fsencode(''.join(digests))).hexdigest()
    directory = _directory(sha256)
    if not directory.exists():
        try:
            _build(files, directory)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(
                f'cannot prepare text in {cache.directory()}: {reason} - set MHA_CACHE to a directory'
            ) from error
    return sha256


def read(sha256: str, split: Split) -> UInt8[np.ndarray, 'N']:
    """Bytes of a split, all files joined in path order."""
    return np.concatenate(list(read_files(sha256, split).values()))


def read_files(sha256: str, split: Split) -> dict[str, UInt8[np.ndarray, '_']]:
    """Bytes of every file of a split, by path, in path order."""
    builder: Any = tfds.builder_from_directory(_directory(sha256))  # a decorator hides the signatures of its methods
    source = builder.as_data_source(split)
    records = source.__getitems__(range(len(source)))
    return {os.fsdecode(record['path']): record['text'] for record in records}


def _directory(sha256: str) -> Path:
    return cache.directory() / 'byte_text' / sha256 / str(ByteText.VERSION)


def _build(files: Mapping[str, bytes], directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.directory(), prefix='preparing-') as scratch:
        noise = io.StringIO()
        with contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):  # TFDS's progress bars and notes
            builder = ByteText(files, data_dir=scratch)
            builder.download_and_prepare()
        try:
            os.rename(builder.data_dir, directory)
        except OSError:
            if not directory.exists():  # otherwise another process was faster, with the same bytes
                raise


def _standard_library() -> dict[str, bytes]:
    root = Path(sysconfig.get_paths()['stdlib'])
    paths = [path for path in root.rglob('*.py') if NOT_TEXT.isdisjoint(path.relative_to(root).parts[:-1])]
    if not paths:
        raise UserError(f"this Python keeps no source of its standard library in {root} - use text='path/to/*.txt'")
    return _load(root, paths)


def _matches(pattern: str) -> dict[str, bytes]:
    matches = [Path(os.path.abspath(match)) for match in glob.glob(os.path.expanduser(pattern), recursive=True)]
    paths = [path for path in matches if not path.is_dir()]
    if matches and not paths:
        raise UserError(f'text {pattern!r} is a directory - write {os.path.join(pattern, "*.txt")!r}')
    if not paths:
        raise UserError(f'text {pattern!r} matches no file - it is a path or glob, relative to {os.getcwd()}')
    files = _load(Path(os.path.commonpath([path.parent for path in paths])), paths)
    if not files:
        raise UserError(f'text {pattern!r} matches only empty files')
    return files


def _load(root: Path, paths: list[Path]) -> dict[str, bytes]:
    """Contents of non-empty files by their paths below `root`, in path order."""
    files = {}
    for path in paths:
        try:
            files[path.relative_to(root).as_posix()] = path.read_bytes()
        except OSError as error:
            raise UserError(f'cannot read {path}: {error.strerror}') from error
    return {path: files[path] for path in sorted(files) if files[path]}
