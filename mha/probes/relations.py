"""Relations between words that heads follow: does a head look from a word to its syntactic head, or from a mention to
its antecedent? (Clark et al., 2019, arXiv:1906.04341)

Maps of tokens become maps of words: the attention to a word is the sum over its tokens, the attention from a word the
mean over its tokens. For a link from word i (the dependent, the mention) to word j (its head, the antecedent), a head
predicts the other word with the largest weight, in one of two directions:

    out      argmax_j A_ij     the dependent attends to its head
    in       argmax_j A_ji     the head attends to its dependent

The baseline predicts the word at a fixed offset, the best one for the relation. Sentences are read from files in
CoNLL-U (https://universaldependencies.org/format.html). `Coref=4` or `Coref=2-4` in the last column of a word names the
words of its antecedent. Words inside a multiword token count as words of their own.
"""

import collections
import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mha.arguments import checked
from mha.model.encoder import Encoder
from mha.model.heads import layers
from mha.probes.recording import record
from mha.run.finished import Finished
from mha.spec import UserError
from mha.tasks import Task

PAIRS = 2**18
"""Largest number of pairs of tokens in a batch."""
COREFERENCE = 'coref'
"""Name of the relation between a mention and its antecedent."""
ROUND = 32
"""Sequences are padded to multiples of so many tokens, so that few programs are compiled."""


@dataclasses.dataclass(frozen=True)
class Link:
    """Relation of some words of a sentence to others. Words are counted from 0."""

    relation: str
    source: tuple[int, ...]
    """Dependent, or mention."""
    target: tuple[int, ...]
    """Head of the dependent, or antecedent; one of these words is to be found."""


@dataclasses.dataclass(frozen=True)
class Sentence:
    """Words of a text, with the links between them."""

    words: list[str]
    links: list[Link]
    spaces: list[bool] | None = None
    """Whether a space is after each word; None for all but the last."""

    @functools.cached_property
    def spans(self) -> list[tuple[int, int]]:
        """First and last byte of every word in `text`, the last excluded."""
        spaces, spans, start = self.spaces or [True] * len(self.words), [], 0
        for word, space in zip(self.words, spaces, strict=True):
            spans.append((start, start + len(word.encode())))
            start = spans[-1][1] + space
        return spans

    @property
    def text(self) -> str:
        """Text of the words, with single spaces."""
        spaces = self.spaces or [True] * len(self.words)
        return ''.join(word + ' ' * space for word, space in zip(self.words, spaces, strict=True)).rstrip()


@dataclasses.dataclass(frozen=True)
class Relation:
    """Accuracy with which every head of a model follows a relation in one direction."""

    relation: str
    direction: str
    """'out' or 'in'."""
    count: int
    """Number of links between words with tokens of their own; for a causal model, those that this direction can see."""
    accuracy: Float[np.ndarray, 'L H']
    """Share of links that the head finds; NaN for heads that were removed."""
    offset: int
    """Best fixed offset j - i, in words."""
    baseline: float
    """Share of links at this offset."""

    @property
    def best(self) -> tuple[int, int]:
        """Layer and head with the largest accuracy."""
        layer, head = np.unravel_index(np.nanargmax(self.accuracy), self.accuracy.shape)
        return int(layer), int(head)


@checked
def head_relations(run: Finished, data: str | Path | Iterable[Sentence]) -> list[Relation]:
    """Accuracy of the heads of a run on the relations in a CoNLL-U file, or in sentences: two per relation, one for
    each direction, the most frequent relations first. Raises `UserError` for a file that is malformed, and for models
    that read two sequences."""
    sentences = read_conllu(data) if isinstance(data, str | Path) else [*data]
    if not isinstance(run.model, Encoder) or run.model.readout == 'pair':
        raise UserError('relations are those of one sequence, but this model reads two')
    return relations_of(run.model, sentences, functools.partial(aligned, run.task))


@checked
def relations_of(
    model: Encoder, sentences: Sequence[Sentence], tokenize: Callable[[Sentence], tuple[list[int], list[int]]]
) -> list[Relation]:
    """Accuracy of the heads of a model on the relations in sentences; see `head_relations`. `tokenize` gives the tokens
    of a sentence, and for each of them the number of its word, or -1."""
    hits, offsets = collections.defaultdict(list), collections.defaultdict(list)
    read = [tokenize(one) for one in sentences]
    for sentence, (_, owners), maps in zip(sentences, read, word_maps(model, read), strict=True):
        removed = np.isnan(maps).any((2, 3))
        for link in sentence.links:
            source, target = ([word for word in words if word in owners] for words in (link.source, link.target))
            if not source or not target:  # another word shares their only token
                continue
            for direction, weights in (('out', maps[:, :, source].mean(2)), ('in', maps[..., source].sum(3))):
                ahead = target[0] > source[0]
                if model.causal and ahead == (direction == 'out'):
                    continue  # a query sees no later word
                weights[:, :, source] = -1
                hits[link.relation, direction].append(np.where(removed, np.nan, np.isin(weights.argmax(-1), target)))
                offsets[link.relation, direction].append([word - source[-1] for word in target])
    found = []
    for (relation, direction), right in sorted(hits.items(), key=lambda item: (-len(item[1]), item[0])):
        counts = collections.Counter(offset for one in offsets[relation, direction] for offset in one)
        (offset, best), *_ = counts.most_common(1)
        number = len(right)
        found.append(Relation(relation, direction, number, np.mean(right, axis=0), offset, best / number))
    return found


def aligned(task: Task, sentence: Sentence) -> tuple[list[int], list[int]]:
    """Tokens of a sentence, and for each of them the number of its word. A subword belongs to the word of its last byte
    that is in one; spaces and marks of a pretrained model belong to none, -1."""
    if not task.subwords:
        tokens = [task.tokenize(word) for word in sentence.words]
        return [*itertools.chain(*tokens)], [word for word, each in enumerate(tokens) for _ in each]
    owner_of_byte = [-1] * len(sentence.text.encode())
    for word, (start, stop) in enumerate(sentence.spans):
        owner_of_byte[start:stop] = [word] * (stop - start)
    tokens, spans = task.subwords.spans(sentence.text)
    return tokens, [max(owner_of_byte[start:stop], default=-1) for start, stop in spans]


def word_maps(model: Encoder, read: Sequence[tuple[list[int], list[int]]]) -> list[Float[np.ndarray, 'L H W W']]:
    """Maps between the words of every sentence, given as tokens and the number of each token's word, or -1. They are
    NaN for heads that were removed."""
    graphdef, state = nnx.split(model)
    sizes = [len(tokens) for tokens, _ in read]
    if not any(sizes):
        raise UserError('there are no sentences to read')
    if not any(layer.attention.num_heads for layer in layers(model)):
        raise UserError('the model has no heads left')
    lengths = [min(-(-max(size, 1) // ROUND) * ROUND, max(sizes)) for size in sizes]
    found: dict[int, np.ndarray] = {}
    for length in sorted(set(lengths)):
        members, batch = [i for i in range(len(read)) if lengths[i] == length], max(1, PAIRS // length**2)
        for group in (members[start : start + batch] for start in range(0, len(members), batch)):
            tokens, owners = np.zeros((batch, length), int), np.full((batch, length), -1)
            for row, i in enumerate(group):
                tokens[row, : sizes[i]], owners[row, : sizes[i]] = read[i]
            real = np.arange(length) < np.array([sizes[i] for i in group] + [0] * (batch - len(group)))[:, None]
            maps = np.asarray(_word_maps(graphdef, state, *map(jnp.asarray, (tokens, real, owners))))
            for row, i in enumerate(group):
                words = max(read[i][1], default=-1) + 1
                found[i] = maps[row, :, :, :words, :words]
    return [found[i] for i in range(len(read))]


@functools.partial(jax.jit, static_argnames='graphdef')
def _word_maps(graphdef, state, tokens, real, owners) -> Float[Array, 'B L H W W']:
    """Maps between words, of which there are as many as tokens at most."""
    model = nnx.merge(graphdef, state)
    seen = record(model, tokens, valid=real, position_key=jax.random.key(0))
    member = (owners[..., None] == jnp.arange(tokens.shape[1])[None, None]).astype(jnp.float32)
    mean = member / jnp.maximum(member.sum(1, keepdims=True), 1)
    attentions = [layer.attention for layer in layers(model)]
    shape = len(tokens), len(attentions), attentions[0].dims.heads, *tokens.shape[1:] * 2
    maps = jnp.full(shape, jnp.nan)
    for one in seen.attentions:
        of_words = jnp.einsum('btw,bhts,bsv->bhwv', mean, one.weights(), member)
        maps = maps.at[:, one.layer, np.array(one.heads)].set(of_words)
    return maps


# --- files -----------------------------------------------------------------------------------------------------------


@checked
def read_conllu(path: str | Path) -> list[Sentence]:
    """Sentences of a CoNLL-U file. Raises `UserError` that names the line with a mistake."""
    try:
        lines = Path(path).expanduser().read_text(encoding='utf-8').split('\n')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'cannot read {path}: {error}') from error
    sentences, rows = [], []
    for number, line in enumerate([*lines, ''], 1):
        line = line.rstrip('\r')
        if not line.strip():
            sentences += [_sentence(path, rows)] if rows else []
            rows = []
        elif not line.startswith('#'):
            fields = line.split('\t')
            if len(fields) != 10:
                raise _mistake(path, number, f'a word has 10 columns separated by tabs, not {len(fields)}')
            if not re.fullmatch(r'\d+[-.]\d+', fields[0]):  # multiword tokens, and words that are not in the text
                rows.append((number, fields))
    if not sentences:
        raise UserError(f'{path} has no sentence - its lines are words in 10 columns separated by tabs (CoNLL-U)')
    return sentences


def _sentence(path: str | Path, rows: list[tuple[int, list[str]]]) -> Sentence:
    links, spaces = [], []
    for word, (number, fields) in enumerate(rows):
        name, head, relation, misc = fields[0], fields[6], fields[7], fields[9]
        if name != str(word + 1):
            raise _mistake(path, number, f'word {word + 1} of the sentence has the number {name!r}')
        if not fields[1].strip():
            raise _mistake(path, number, f'word {word + 1} has no form, which is the second column')
        marks = dict(re.findall(r'([^|=]+)=([^|]*)', misc))
        spaces.append(marks.get('SpaceAfter') != 'No')
        named = {relation: head} if head != '_' else {}
        named |= {COREFERENCE: marks['Coref']} if 'Coref' in marks else {}
        for kind, text in named.items():
            targets = _words(text, len(rows))
            if targets is None or word in targets:
                raise _mistake(path, number, f'{kind} is to another word from 1 to {len(rows)}, not {text!r}')
            links += [Link(kind, (word,), targets)] if targets else []
    return Sentence([fields[1] for _, fields in rows], links, spaces)


def _words(text: str, words: int) -> tuple[int, ...] | None:
    """Words that '4' or '2-4' names, counted from 0; none for '0', the root; None for a mistake."""
    match = re.fullmatch(r'([0-9]{1,6})(?:-([0-9]{1,6}))?', text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
    return tuple(range(first - 1, last)) if 1 <= first <= last <= words else () if text == '0' else None


def _mistake(path: str | Path, number: int, message: str) -> UserError:
    return UserError(f'{path}, line {number}: {message}')
