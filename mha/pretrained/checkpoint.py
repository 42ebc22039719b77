"""Checkpoint of a pretrained model: a folder with a `config.json` and its tensors in `*.safetensors`, in one file or in
several with an index. Every setting and every tensor is checked when it is read, and what nobody reads is an error, so
that no part of a model is lost silently."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - with it, NumPy knows bfloat16
import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open

from mha.machine.files import check_regular, read_json
from mha.spec import UserError

TYPES = 'F64', 'F32', 'F16', 'BF16'
"""Types of tensors that hold weights. Others, such as I8, are those of quantised models."""
_UNSET = object()


class Checkpoint:
    """Settings and tensors of a folder. `take` gives a tensor once its shape is checked."""

    def __init__(self, folder: Path):
        check_regular(folder)
        self.folder, self.config = folder, read_json(folder / 'config.json')
        if self.config.get('quantization_config'):
            raise UserError(
                f'{self._file}: quantised weights cannot be read - choose a checkpoint in float or bfloat16'
            )
        self.where = _tensors(folder)
        self.left = {*self.where}

    @property
    def _file(self) -> Path:
        return self.folder / 'config.json'

    # -------------------------------------------------------------------------------------------------------- settings
    def only(self, key: str, *choices: Any, default: Any = _UNSET) -> Any:
        """Setting of config.json, which must be one of `choices`; the first is the default unless one is given."""
        value = self.config.get(key, choices[0] if default is _UNSET else default)
        if value not in choices:
            raise self.refusal(key, value, ' or '.join(map(repr, choices)))
        return value

    def count(
        self, key: str, default: int | None = None, low: int = 1, settings: Mapping[str, Any] | None = None
    ) -> int:
        """Setting that is a whole number, `low` or more; of a part of config.json, if one is given."""
        value = (self.config if settings is None else settings).get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise self.refusal(key, value, f'a whole number, {low} or more')
        return value

    def number(self, key: str, default: float, settings: Mapping[str, Any] | None = None) -> float:
        """Setting that is a number above 0; of a part of config.json, if one is given."""
        value = (self.config if settings is None else settings).get(key)
        value = default if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float('inf'):
            raise self.refusal(key, value, 'a number above 0')
        return float(value)

    def refusal(self, key: str, value: Any, right: str) -> UserError:
        """Error about a setting, which says what would be right."""
        there = 'is missing' if value is None else f'is {value!r}'
        return UserError(f'{self._file}: {key} {there}, but it must be {right}')

    # --------------------------------------------------------------------------------------------------------- tensors
    def rename(self, *changes: tuple[str, str]) -> None:
        """Changes the names of tensors: patterns and what replaces them. Checkpoints of one model differ in a prefix,
        or in the names of their norms."""
        for pattern, new in changes:
            self.where = {re.sub(pattern, new, name): place for name, place in self.where.items()}
        self.left = {*self.where}

    def take(self, name: str, *shape: int) -> Float32[np.ndarray, '...']:
        """Tensor in float32. Raises `UserError` if it is missing or has another shape."""
        if name not in self.where:
            raise UserError(f'{self.folder} has no tensor {name!r} of shape {shape}, which its config.json calls for')
        file, stored = self.where[name]
        try:
            with safe_open(file, 'numpy') as tensors:
                part = tensors.get_slice(stored)
                there, kind = tuple(part.get_shape()), part.get_dtype()
                if there != shape:
                    raise UserError(
                        f'{file}: tensor {stored!r} has the shape {there}, where config.json calls for {shape}'
                    )
                if kind not in TYPES:
                    raise UserError(f'{file}: tensor {stored!r} has type {kind} - choose weights in {", ".join(TYPES)}')
                values = tensors.get_tensor(stored).astype(np.float32)
        except (SafetensorError, OSError) as error:
            raise _unreadable(file, error) from error
        self.left.discard(name)
        return values

    def linear(self, name: str, inputs: int, outputs: int) -> Float32[np.ndarray, 'I O']:
        """Kernel of a linear layer, which is stored as [outputs, inputs]."""
        return self.take(name, outputs, inputs).T

    def check_all_taken(self, unused: str) -> None:
        """Raises `UserError` if there are tensors that nobody took, unless their name matches a pattern."""
        if left := sorted(name for name in self.left if not re.search(unused, name)):
            more = f' and {len(left) - 1} more' if len(left) > 1 else ''
            raise UserError(
                f'{self.folder} has the tensor {left[0]!r}{more}, for which a model of this config.json has no use - '
                'choose a checkpoint of the language model alone'
            )


def _tensors(folder: Path) -> dict[str, tuple[Path, str]]:
    """File and name of every tensor, by its name."""
    index, single = folder / 'model.safetensors.index.json', folder / 'model.safetensors'
    if single.exists():
        return {name: (single, name) for name in _names(single)}
    if not index.exists():
        raise UserError(
            f'{folder} has neither model.safetensors nor model.safetensors.index.json - save the model in that format'
        )
    files = read_json(index).get('weight_map')
    if not isinstance(files, dict) or not all(
        isinstance(file, str) and Path(file).name == file for file in files.values()
    ):
        raise UserError(f'{index}: weight_map must name a file in this folder for every tensor')
    there = {file: {*_names(folder / file)} for file in sorted({*files.values()})}
    for name, file in files.items():
        if name not in there[file]:
            raise UserError(f'{folder / file} has no tensor {name!r}, which {index.name} places there')
    return {name: (folder / file, name) for name, file in files.items()}


def _names(file: Path) -> Iterable[str]:
    try:
        with safe_open(file, 'numpy') as tensors:
            return [*tensors.keys()]
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f'cannot read {file}, which is cut off or no safetensors file: {" ".join(str(error).split())}')
