"""Tokens of a pretrained model: the `tokenizer.json` beside its weights, read by the library `tokenizers`.

The bytes of a token, for losses in bits per byte and for generated texts, follow from its name:

    byte-level    one character per byte, as in GPT-2 (Radford et al., 2019); exact
    pieces        '▁' is a blank and '<0x0A>' a byte, as in SentencePiece (Kudo & Richardson, 2018, arXiv:1808.06226)
    word pieces   '##' continues a word, other tokens begin one after a blank, as in BERT (Devlin et al., 2019,
                  arXiv:1810.04805); near, as the tokens have lost white space and perhaps case
"""

import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from mha.datasets.subwords import Subwords, Tokens, bounded
from mha.machine.files import read_json
from mha.spec import UserError

AT_ONCE = 256
"""Number of texts that are encoded at a time."""
MASKS = '[MASK]', '<mask>'
"""Names of the token that hides another."""
_VISIBLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTES = {chr(byte): byte for byte in _VISIBLE}
_BYTES |= {chr(256 + index): byte for index, byte in enumerate(sorted({*range(256)} - {*_VISIBLE}))}
"""Byte that each character of a byte-level token stands for: itself if it is visible, otherwise one from 256 on."""


def read(folder: str | Path) -> 'CheckpointTokens':
    """Tokens of the checkpoint in a folder. Without a tokenizer.json they have numbers, but no text."""
    folder = Path(folder).expanduser().resolve()
    config = read_json(folder / 'config.json')
    size = config.get('vocab_size')
    if not isinstance(size, int) or size < 1:
        raise UserError(f'{folder / "config.json"}: vocab_size must be a whole number above 0, not {size!r}')
    path = folder / 'generation_config.json'
    ends = (config | (read_json(path) if path.exists() else {})).get('eos_token_id')
    stop = tuple(end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int))
    path = folder / 'tokenizer.json'
    return CheckpointTokens(json.dumps(read_json(path)) if path.exists() else '', str(folder), size, stop)


@dataclasses.dataclass(frozen=True)
class CheckpointTokens(Subwords):
    """Tokens of a checkpoint. Texts are encoded without the special tokens that mark their ends; a prompt has those."""

    folder: str = ''
    rows: int = 0
    """Number of tokens that the model embeds, which may be more than the tokenizer has."""
    ends: tuple[int, ...] = ()
    """Tokens that end a text."""

    @property
    def stop(self):
        return self.ends

    @property
    def mask(self) -> int | None:
        """Token that hides another, if there is one."""
        return next((token for name, token in self._special.items() if name in MASKS), None)

    @functools.cached_property
    def names(self) -> list[str]:
        """Name of each token."""
        if not self.json:
            return [f'<{token}>' for token in range(self.rows)]
        found = {token: name for name, token in self._tokenizer.get_vocab(with_added_tokens=True).items()}
        if max(found, default=0) >= self.rows:
            raise UserError(
                f'{self.folder}: tokenizer.json has token {max(found)}, but the vocab_size of config.json is '
                f'{self.rows}'
            )
        return [found.get(token, f'<{token}>') for token in range(self.rows)]

    @functools.cached_property
    def tokens(self) -> list[bytes]:
        """Bytes of each token; none for special ones."""
        if not self.json:
            return [b''] * self.rows
        special, known = {*self._special.values()}, {*self._tokenizer.get_vocab(with_added_tokens=True)}
        written = _written(json.loads(self.json))
        return [
            b'' if token in special or name not in known else written(name) for token, name in enumerate(self.names)
        ]

    @functools.cached_property
    def printed(self) -> list[str]:
        """Text of each token, and the names of those that stand for none."""
        texts = super().printed
        return [text if written else name for text, written, name in zip(texts, self.tokens, self.names, strict=True)]

    def prompt(self, text):
        return self._tokenizer.encode(text).ids

    def spans(self, text):
        encoded = self._tokenizer.encode(text)
        starts = [0, *itertools.accumulate(len(character.encode()) for character in text)]
        return encoded.ids, [(starts[first], starts[last]) for first, last in encoded.offsets]

    def encode_all(self, texts: Sequence[bytes]) -> Tokens:
        content, sizes = [np.zeros(0, np.int32)], [0]
        for first in range(0, len(texts), AT_ONCE):
            group = [texts[index].decode(errors='replace') for index in range(first, min(first + AT_ONCE, len(texts)))]
            for each in self._tokenizer.encode_batch_fast(group, add_special_tokens=False):
                content.append(np.array(each.ids, np.int32))
                sizes.append(len(each.ids))
        return bounded(Tokens(np.concatenate(content), np.cumsum(sizes, dtype=np.int64)))

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        if not self.json:
            raise UserError(
                f'{self.folder} has no tokenizer.json, without which the model reads no text - save one there, or give '
                'the model numbers of tokens: run.model(tokens)'
            )
        try:
            tokenizer = Tokenizer.from_str(self.json)
        except Exception as error:  # the library raises no narrower one
            raise UserError(f'cannot read the tokenizer.json in {self.folder}: {error}') from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @property
    def _special(self) -> dict[str, int]:
        """Tokens that stand for no text, by name."""
        if not self.json:
            return {}
        added = self._tokenizer.get_added_tokens_decoder()
        return {each.content: token for token, each in added.items() if each.special}


def _written(tokenizer: Mapping[str, Any]) -> Any:
    """Function from the name of a token to its bytes."""
    parts = {*_types(tokenizer.get('pre_tokenizer')), *_types(tokenizer.get('decoder'))}
    if 'ByteLevel' in parts:
        return lambda name: b''.join(bytes([_BYTES[c]]) if c in _BYTES else c.encode() for c in name)
    if tokenizer.get('model', {}).get('type') == 'WordPiece':
        return lambda name: name[2:].encode() if name.startswith('##') else f' {name}'.encode()
    return _piece


def _piece(name: str) -> bytes:
    byte = re.fullmatch(r'<0x([0-9A-F]{2})>', name)
    return bytes([int(byte[1], 16)]) if byte else name.replace('▁', ' ').encode()


def _types(part: Any) -> Iterable[str]:
    """Types of a part of a tokenizer.json and of the parts within it."""
    if isinstance(part, Mapping):
        yield str(part.get('type'))
        for inner in part.values():
            yield from _types(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _types(inner)
