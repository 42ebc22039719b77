"""Subwords: tokens that a corpus is cut into, learned from its train split.

    bytes                  256 tokens
    bpe(4096)              byte pair encoding (Sennrich et al., 2016, arXiv:1508.07909)
    checkpoint('folder')   those of a pretrained model, which are not learned (`checkpoint_tokens.py`)

There is no unigram language model, as its trainer in the library `tokenizers` gives other scores in every process. What
is learned is byte-level: every byte is a token, so that any sequence of bytes can be encoded, and decodes to itself.
The library reads characters, so it is given one character per byte (Latin-1). Subwords do not cross from words to
digits, punctuation or the space after; bytes outside ASCII count as letters.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt8
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from mha import arguments, spec
from mha.datasets.corpus import Corpus, Texts, packed
from mha.machine import cache
from mha.spec import UserError

ALPHABET = [chr(byte) for byte in range(256)]
WORDS = (
    r' ?[A-Za-z_\x80-\xff]{1,32}| ?[0-9]{1,3}| ?[^\x00-\x20A-Za-z0-9_\x80-\xff]{1,32}'
    r'|[\x00-\x20]{1,32}(?![^\x00-\x20])|[\x00-\x20]'
)
"""Words, of which no subword has parts of two: letters, digits and punctuation after a space, and white space."""
PIECE = 2**18
"""Largest number of bytes that are cut into words at a time; longer texts are encoded in pieces."""
AT_ONCE = 2**22
"""Number of bytes that are encoded at a time."""
_WORDS = re.compile(WORDS.encode('latin-1'))
KNOWN = 2**20
"""Largest number of words whose tokens are remembered."""
Size = Annotated[int, arguments.at_least(257), arguments.at_most(2**16)]
"""Number of subwords, of which 256 are the bytes."""


class Tokens(NamedTuple):
    """Tokens of R texts in a row: those of text i are `content[start[i] : start[i + 1]]`."""

    content: Int32[np.ndarray, 'N'] | UInt8[np.ndarray, 'N']
    start: Int64[np.ndarray, 'R+1']


@dataclasses.dataclass(frozen=True)
class Subwords:
    """Subwords of a corpus. `json` describes them completely; it is empty for bytes."""

    json: str = ''

    @functools.cached_property
    def tokens(self) -> list[bytes]:
        """Bytes of each token."""
        if not self.json:
            return [bytes([byte]) for byte in range(256)]
        vocabulary = self._tokenizer.get_vocab()
        return [token.encode('latin-1') for token in sorted(vocabulary, key=vocabulary.__getitem__)]

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    @property
    def printed(self) -> list[str]:
        """Printed form of each token, with a dot for what is no visible character."""
        return [_visible(token) for token in self.tokens]

    @property
    def bytes_per_token(self) -> np.ndarray:
        """Number of bytes of each token [V], for losses in bits per byte."""
        return np.array([len(token) for token in self.tokens])

    @property
    def stop(self) -> tuple[int, ...]:
        """Tokens that end a generated text."""
        return ()

    def encode(self, text: bytes) -> list[int]:
        """Tokens of a text."""
        return self.encode_all([text]).content.tolist()

    def prompt(self, text: str) -> list[int]:
        """Tokens of a text that a model is to continue."""
        return self.encode(text.encode())

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokens of a prompt, and the first and last byte of each, the last excluded."""
        tokens = self.prompt(text)
        ends = [0, *itertools.accumulate(len(self.tokens[token]) for token in tokens)]
        return tokens, [*itertools.pairwise(ends)]

    def decode(self, tokens: Iterable[int] | np.ndarray) -> bytes:
        """Text of tokens."""
        return b''.join(self.tokens[token] for token in tokens)

    def encode_all(self, texts: Sequence[bytes]) -> Tokens:
        """Tokens of texts in a row, encoded in parallel, some megabytes at a time."""
        if not self.json:
            whole = texts if isinstance(texts, Texts) else packed(texts)
            return bounded(Tokens(whole.content, whole.start))
        words, content, owners, counts = _Words(self._tokenizer), [np.zeros(0, np.int32)], [], []
        for group in _groups(_pieces(texts)):
            tokens, count = words.encode([_WORDS.findall(piece) for _, piece in group])
            content.append(tokens)
            owners += [owner for owner, _ in group]
            counts += count.tolist()
        sizes = np.bincount(np.array(owners, int), np.array(counts), len(texts))
        return bounded(Tokens(np.concatenate(content), np.append(0, np.cumsum(sizes)).astype(np.int64)))

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.from_str(self.json)


def bounded(tokens: Tokens) -> Tokens:
    """Same tokens. Raises `UserError` if there are too many for the indices of arrays on a device."""
    if tokens.content.size >= spec.LARGEST:
        raise UserError(f'{tokens.content.size:,} tokens are more than 2^31 - choose a part of the data')
    return tokens


def _pieces(texts: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Texts in pieces of at most `PIECE` bytes, each with the index of its text."""
    for index, text in enumerate(texts):
        for first in range(0, len(text), PIECE):
            yield index, text[first : first + PIECE]


def _groups(pieces: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    """Pieces in groups of at least `AT_ONCE` bytes, except for the last."""
    group, size = [], 0
    for piece in pieces:
        group.append(piece)
        size += len(piece[1])
        if size >= AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


class _Words:
    """Tokens of the words so far, so that `tokenizers` encodes every word only once."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.clear()

    def clear(self) -> None:
        self.number: dict[bytes, int] = {}
        self.tokens, self.start = np.zeros(0, np.int32), np.zeros(1, np.int64)

    def encode(self, pieces: list[list[bytes]]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of pieces, which are lists of words, in a row, and their number in each piece."""
        if len(self.number) > KNOWN:
            self.clear()
        self._add([word for word in dict.fromkeys(itertools.chain(*pieces)) if word not in self.number])
        words = np.array([self.number[word] for piece in pieces for word in piece], np.int64)
        count = self.start[words + 1] - self.start[words]
        ends = np.cumsum(count)
        shift = np.repeat(self.start[words] - (ends - count), count)
        ends_of_pieces = np.cumsum([len(piece) for piece in pieces])
        return self.tokens[np.arange(len(shift)) + shift], np.diff(ends[ends_of_pieces - 1], prepend=0)

    def _add(self, words: list[bytes]) -> None:
        encoded = [each.ids for each in self.tokenizer.encode_batch_fast([word.decode('latin-1') for word in words])]
        self.number |= {word: len(self.number) + index for index, word in enumerate(words)}
        self.tokens = np.concatenate([self.tokens, *(np.array(ids, np.int32) for ids in encoded)])
        self.start = np.append(self.start, self.start[-1] + np.cumsum([len(ids) for ids in encoded], dtype=np.int64))


# ------------------------------------------------------------------------------------------------------------- learning
def make(tokens: str, corpus: Corpus) -> Subwords:
    """Subwords that a spec such as `'bpe(4096)'` describes, learned from all texts of the train split of a corpus. They
    are kept in the cache."""
    call, *more = spec.parse(tokens)
    if more:
        raise UserError(f'subwords {tokens!r} do not compose')
    kind = KINDS[spec.choose(call.name, KINDS, 'subwords')]
    trainer = arguments.build(kind, call, 'subwords')
    if isinstance(trainer, Subwords):  # nothing to learn
        return trainer
    name = hashlib.sha256(f'{corpus.sha256} {call.name} {trainer.vocab_size} {WORDS}'.encode()).hexdigest()
    path = cache.directory() / 'subwords' / f'{name}.json'

    def learn() -> None:
        columns = corpus.read('train')
        texts = (text for name, column in columns.items() if name in ('text', 'source', 'target') for text in column)
        _write(path, _learned(trainer, texts))

    return cache.kept(path, learn, lambda: _read(path))


def _read(path: Path) -> Subwords:
    text = path.read_text()
    Tokenizer.from_str(text)  # an empty file would be bytes
    return Subwords(text)


def _bytes() -> Subwords:
    return Subwords()


def _checkpoint(folder: str) -> Subwords:
    from mha.datasets import checkpoint_tokens

    return checkpoint_tokens.read(folder)


def _bpe(size: Size = 4096) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(vocab_size=size, initial_alphabet=ALPHABET, show_progress=False)  # type: ignore[call-arg]


KINDS = {'bytes': _bytes, 'bpe': _bpe, 'checkpoint': _checkpoint}


def _learned(trainer: Any, texts: Iterable[bytes]) -> str:
    tokenizer = Tokenizer(models.BPE())
    words = Regex(re.sub(r'\\x(..)', r'\\x{\1}', WORDS))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(words, 'isolated')  # type: ignore[attr-defined]
    tokenizer.train_from_iterator((piece.decode('latin-1') for _, piece in _pieces(texts)), trainer)
    return json.dumps(json.loads(tokenizer.to_str()))


def _write(path: Path, text: str) -> None:
    """Writes a file that other processes may write at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        file = Path(directory) / path.name
        file.write_text(text)
        os.replace(file, path)


def _visible(token: bytes) -> str:
    try:
        text = token.decode()
    except UnicodeDecodeError:  # parts of characters
        text = token.decode('ascii', errors='surrogateescape')
    return ''.join(character if character.isprintable() else '·' for character in text)
