"""Sources by the name of a TFDS data set, such as 'ag_news_subset', 'wiki40b/en:1.3.0' or 'imdb_reviews[:10%]', whose
slice applies to both splits. The data set must be prepared in the format array_record, which is read without
TensorFlow. Test data is its split `test`, or `validation` if there is none."""

import contextlib
import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import naming, read_only_builder, registered

from mha.datasets.corpus import Split, records
from mha.datasets.files import row
from mha.datasets.preparation import FIELDS, Kind, Malformed, Row, Source
from mha.machine import cache
from mha.spec import UserError

_NAME = re.compile(r'([A-Za-z]\w*(?:/[\w.-]+)?(?::\d+\.\d+\.\d+)?)(?:\[([\d%:-]*)\])?', re.ASCII)
FORMAT = 'array_record'
EXAMPLE = 'wiki40b/en:1.3.0[:10%]'


def source(kind: Kind, data: str, data_dir: str, *columns: str) -> Source:
    """Source of a data set below `data_dir`, by default TFDS's own directory. Its `columns` are those of its supervised
    keys, except where another name is given."""
    match = _NAME.fullmatch(data)
    if not match:
        raise UserError(
            f'no file matches {data!r}, relative to {os.getcwd()}, and data sets are named like {EXAMPLE!r}'
        )
    name, part = match.groups()
    with _reading(name, data_dir):
        builder = _prepared(name, data_dir)
    held_out = next((split for split in ('test', 'validation') if split in builder.info.splits), '')
    if 'train' not in builder.info.splits or not held_out:
        there = ', '.join(builder.info.splits)
        raise UserError(f'{name} must have the splits train, and test or validation, not {there}')
    fields = _columns(kind, name, builder.info, columns)
    splits: dict[Split, str] = {'train': _part(builder, 'train', part), 'test': _part(builder, held_out, part)}

    def rows() -> Iterator[Row | Malformed]:
        for split, theirs in splits.items():
            with _reading(name, data_dir):
                for number, record in enumerate(records(builder, theirs)):
                    place = f'{name}, {theirs.partition("[")[0]}:{number}'
                    values = tuple(_text(builder.info.features[field], record[field]) for field in fields)
                    if kind == 'documents':
                        yield Row((place.encode(), values[0].encode(errors='surrogateescape')), split=split)
                    else:
                        yield row(place, (values[0], values[1]), split)

    files = {
        path.name: path for split in ('train', held_out) for path in map(Path, builder.info.splits[split].filepaths)
    }
    redistribution = getattr(builder.info, 'redistribution_info', None)
    return Source(
        kind,
        files,
        rows,
        f'train and {held_out} of the data set' + (f', [{part}] of each' if part else ''),
        f'TFDS {builder.info.full_name}',
        getattr(redistribution, 'license', '') or 'not stated',
        settings=f'{" ".join(fields)} {part or ""}',
    )


def _reading(name: str, data_dir: str) -> contextlib.AbstractContextManager[None]:
    return cache.reading(name, f'{command(name, data_dir)} --overwrite')


def _part(builder: Any, split: str, part: str | None) -> str:
    """Name of a split, or of a slice of it."""
    if part is None:
        return split
    with contextlib.suppress(ValueError):
        if builder.info.splits[f'{split}[{part}]'].num_examples >= 0:
            return f'{split}[{part}]'
    count = builder.info.splits[split].num_examples
    raise UserError(
        f'the split {split} of {count:,} examples has no slice [{part}] - write it like [:10%] or [100:200]'
    )


def _prepared(name: str, data_dir: str) -> Any:
    """Builder of a prepared data set. Raises `UserError` with the command that prepares it."""
    if '://' in data_dir:
        raise UserError(f'data_dir={data_dir!r} is no path of a file system - copy or mount it, and give a local path')
    at = {'data_dir': os.path.expanduser(data_dir)} if data_dir else {}
    try:
        builder = read_only_builder.builder_from_files(name, **at)
    except registered.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        dataset = naming.parse_builder_name_kwargs(name)[0].name
        if dataset not in known:
            near = difflib.get_close_matches(dataset, known, n=1, cutoff=0.85)
            # `known` is incomplete: without TensorFlow, TFDS does not list `wiki40b`, `glue` and others
            hint = f'did you mean {near[0]!r}?' if near else command(name, data_dir)
            raise UserError(
                f'{name!r} is neither a file, relative to {os.getcwd()}, nor a prepared data set of TFDS - {hint}'
            ) from None
        raise UserError(f'{name} is not prepared - {command(name, data_dir)}') from None
    there = getattr(builder.info.file_format, 'value', 'files of an old version')
    if there != FORMAT:
        raise UserError(f'{name} is prepared as {there}, not {FORMAT} - {command(name, data_dir)} --overwrite')
    return builder


def command(name: str, data_dir: str) -> str:
    """Instruction that prepares a data set."""
    return f'where TensorFlow is installed, run: tfds build {name} --file_format={FORMAT}' + (
        f' --data_dir={data_dir}' if data_dir else ''
    )


def _columns(kind: Kind, name: str, info: Any, given: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the features to read."""
    there = ', '.join(sorted(info.features))
    texts = [each for each in info.features if isinstance(info.features[each], tfds.features.Text)]
    if kind == 'documents':
        wanted = ('text',) if 'text' in texts else tuple(texts)
        if len(wanted) != 1:
            raise UserError(f'{name} must have one feature with a text, not {there}')
        return wanted
    own = info.supervised_keys or FIELDS[kind]
    wanted = tuple(one or other for one, other in zip(given, own, strict=True)) if given else own
    if missing := [each for each in wanted if each not in info.features]:
        raise UserError(f'{name} has no feature {missing[0]!r} but {there}')
    return wanted


def _text(feature: Any, value: Any) -> str:
    """Text of a value: that of a text, the name of a class, or the digits of a number."""
    if isinstance(feature, tfds.features.ClassLabel):
        return feature.int2str(int(value))
    return value.decode(errors='surrogateescape') if isinstance(value, bytes) else str(value)
