"""Base classes of tasks: generators of examples that run on the device, inside jit, with a traced length.

A model reads the input, then one placeholder per answer symbol, then padding. Its logits at the placeholders are the
answer (Ruoss et al., 2023, arXiv:2305.16843). A `Sequence` is for causal models, which read the prompt and then the
answer so far (Kazemnejad et al., 2023, arXiv:2305.19466).
"""

import dataclasses
from collections.abc import Sequence as Symbols
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key, PRNGKeyArray

from mha.arguments import at_least, checked
from mha.spec import UserError, check_utf8

Size = Annotated[int, at_least(1)]
"""Number of examples, or of symbols in one."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Examples as a model reads them; all fields are [B, T], or None. Untyped, since fields of a pytree may hold any
    object."""

    tokens: Any
    valid: Any
    """Mask of the real tokens: input and placeholders, but not padding."""
    targets: Any
    loss_mask: Any
    """Mask of the tokens that count in the loss."""
    metric_mask: Any
    """Mask of the tokens that count in accuracy."""
    segments: Any = None
    """Number of each token's document, if a row holds several that do not see each other."""
    pos: Any = None
    """Coordinates, if they are not the slot numbers."""
    prefix: Any = None
    """Mask of the tokens of the question, which a prefix LM reads in both directions; None if the task has none."""
    legal: Any = None
    """Classes that count as right, as bits of an integer, if the target is not the only one."""

    def right(self, predicted: Int[Array, '...']) -> Bool[Array, '... T']:
        """Mask of the tokens that count and for which the class `predicted`, of each or of all, is right."""
        hit = predicted == self.targets if self.legal is None else (self.legal >> predicted) % 2 == 1
        return hit & self.metric_mask

    @property
    def extra(self) -> dict[str, Any]:
        """Optional fields that the batch has, as arguments of a model."""
        fields = {name: getattr(self, name) for name in ('segments', 'pos', 'prefix')}
        return {name: value for name, value in fields.items() if value is not None}


class Task:
    """Base class of tasks. Subclasses set `inputs` (number of input symbols) and `num_classes`, and define
    `output_length` and `sample`. A task is a pytree whose one child is `data`, so that it can be passed to a jitted
    function.
    """

    inputs: int
    num_classes: int
    level: str = ''
    """Class of the task: 'regular', 'context-free', 'context-sensitive', 'algorithmic', 'retrieval' or 'language'."""
    alphabet: Symbols[str] = '0123456789'
    """Printed form of each input symbol."""
    answers: Symbols[str] = ''
    """Printed form of each class; `alphabet` unless set."""
    metric: str = 'accuracy'
    """Metric that published tables of the task report, by its name in `mha.training.metrics`."""
    example_arguments = ''
    """Example arguments for catalogues, if the task cannot be built without any."""
    terminator: int | None = None
    """Class that ends an answer. Symbols after it do not count in accuracy nor, if `mask_loss`, in the loss."""
    mask_loss = False
    data: Any = ()
    """Arrays that `sample` reads; generated tasks have none."""
    halves = False
    """Whether the tokens are two sequences of equal size side by side, each with its own padding."""
    has_source = False
    """Whether the first half is a source and the second what a decoder reads, with the answers there."""
    begin: int = 0
    """Token with which the target of a source begins."""
    corpus: Any = None
    """Data set that the task reads (`mha.datasets.Corpus`); generated tasks have none."""
    sha256: str = ''
    """Checksum that identifies the data of a task in the records of a run."""
    subwords: Any = None
    """Subwords that the tokens are (`mha.datasets.subwords`), if they are learned from the corpus."""
    ragged = False
    """Whether examples of one length may have different numbers of tokens, as texts do."""
    one_class = False
    """Whether the answer of an example is one class, so that results have macro F1 and a confusion matrix."""
    shortest = 1
    """Smallest length of an evaluation."""
    same_examples = False
    """Whether an evaluation draws the examples of every length with the same keys, so that they are related."""
    on_test_data = False
    """Whether `data` is kept from training (`held_out`)."""
    baseline_per_position = True
    """Whether the baseline without input may depend on the index in the answer (see `mha.training.evaluation`)."""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)

        def flatten(task):
            return (task.data,), tuple(sorted((k, v) for k, v in vars(task).items() if k != 'data'))

        def unflatten(settings, children):
            task = object.__new__(cls)
            vars(task).update(settings, data=children[0])
            return task

        jax.tree_util.register_pytree_node(cls, flatten, unflatten)

    def __init__(self, *, causal: bool = False):
        self.causal = causal

    @property
    def tokenizer(self) -> str:
        """JSON of the subwords that the tokens are; empty for other tokens."""
        return self.subwords.json if self.subwords else ''

    @property
    def bytes_per_symbol(self) -> np.ndarray | None:
        """Size of the text that each class stands for [C]; None if classes are bytes, or no text."""
        return self.subwords.bytes_per_token if self.tokenizer and not self.one_class else None

    @property
    def facts(self) -> dict[str, Any]:
        """Sizes, origin and licence of the data that a task reads, for the summary of a run."""
        return self.corpus.facts if self.corpus else {}

    @property
    def vocab_size(self) -> int:
        """Number of tokens: the input symbols and the placeholder."""
        return self.inputs + 1

    @property
    def vocabulary(self) -> list[str]:
        """Printed form of each token, with '_' for the placeholder, or another sign if '_' is a symbol."""
        symbols = [*self.alphabet[: self.inputs]]
        return symbols + ['▢' if '_' in symbols else '_'] * (self.vocab_size - self.inputs)

    @property
    def classes(self) -> list[str]:
        """Printed form of each class."""
        return [*(self.answers or self.alphabet)[: self.num_classes]]

    @property
    def chance(self) -> float:
        """Accuracy of a uniform guess."""
        return 1 / self.num_classes

    @property
    def stop(self) -> tuple[int, ...]:
        """Symbols that end a generated sequence."""
        return ()

    def tokenize(self, text: str) -> list[int]:
        """Tokens of a text in the symbols of the task. Blanks may be left out between single characters. Raises
        `UserError` for symbols that the task does not have."""
        check_utf8(text, 'a text')
        if self.subwords:
            return self.subwords.prompt(text)
        symbols = self.vocabulary
        words = text.split() if _gap(symbols) else [*text.replace(' ', '')]
        unknown = [word for word in words if word not in symbols]
        if unknown:
            raise UserError(f'the task has no symbol {unknown[0]!r} - it has {" ".join(symbols)}')
        return [symbols.index(word) for word in words]

    def encode(self, text: str) -> list[int]:
        """Tokens of a text that a causal model is to continue. Raises `UserError` for a task without such models."""
        raise UserError('a model of this task reads a question and answers at once: it continues no text')

    def sentence_pairs(self, split: str, length: int | None = None) -> list[tuple[str, str]]:
        """Sources and targets of a split, with up to `length` tokens each. Raises `UserError` for a task without
        them."""
        raise UserError('a model of this task does not translate: the task has no sentence pairs')

    @property
    def gap(self) -> str:
        """Text between two symbols: a blank if symbols are words."""
        return _gap(self.vocabulary)

    def decode(self, tokens: Symbols[int]) -> str:
        """Text of generated tokens."""
        return written([self.vocabulary[token] for token in tokens], self.vocabulary)

    def held_out(self) -> 'Task':
        """Same task on data kept from training; a generated task returns itself."""
        return self

    def input_length(self, length):
        """Number of input symbols of an example of `length`, an int or a traced integer."""
        return length

    def output_length(self, length):
        """Number of answer symbols for an input of `length`, an int or a traced integer."""
        raise NotImplementedError

    def num_tokens(self, length: int) -> int:
        """Number of tokens that the model reads for an example of `length`."""
        return self.input_length(length) + self.output_length(length)

    def sample(
        self, key: PRNGKeyArray, length: Int[Array, ''] | int, max_length: int
    ) -> tuple[Int[Array, 'N'], Int[Array, 'O']]:
        """One example: its input [max_length] and its answer [output_length(max_length)]. Only the first
        `input_length(length)` and `output_length(length)` symbols count; they must not depend on `max_length`."""
        raise NotImplementedError

    def example(self, key: PRNGKeyArray, length: Int[Array, ''] | int, max_length: int) -> Batch:
        """One example as a model reads it, without a batch axis."""
        symbols, answer = self.sample(key, length, max_length)
        slot = jnp.arange(self.num_tokens(max_length))
        start = self.input_length(length)
        end = start + self.output_length(length)
        is_answer = (slot >= start) & (slot < end)
        read = symbols[jnp.clip(slot, 0, symbols.size - 1)]
        targets = jnp.where(is_answer, answer[jnp.clip(slot - start, 0, answer.size - 1)], 0)
        counts = is_answer
        if self.terminator is not None:
            ends = is_answer & (targets == self.terminator)
            counts = is_answer & (jnp.cumsum(ends) - ends == 0)
        return Batch(
            tokens=jnp.where(slot < start, read, jnp.where(is_answer, self.inputs, 0)).astype(jnp.int32),
            valid=slot < end,
            targets=targets.astype(jnp.int32),
            loss_mask=counts if self.mask_loss else is_answer,
            metric_mask=counts,
        )

    def readable(self, example: Batch) -> tuple[str, str]:
        """Input and answer of one example, printed for a person."""
        tokens, targets = (jax.device_get(x).tolist() for x in (example.tokens, example.targets))
        valid, counts = (jax.device_get(x).tolist() for x in (example.valid, example.metric_mask))
        symbols, classes = self.vocabulary, self.classes
        appended = self.num_tokens(2) > self.input_length(2)  # otherwise a placeholder is part of the input
        ends = [i for i, real in enumerate(valid) if real and not (appended and tokens[i] == self.inputs)]
        end = max(ends, default=-1) + 1
        read = [symbols[token] for token in tokens[:end]]
        answer = [classes[y] for y, one in zip(targets, counts, strict=True) if one]
        return written(read, symbols), written(answer, classes)

    def examples(self, keys: Key[Array, 'B'], length: Int[Array, '*B'] | int, max_length: int) -> Batch:
        """Batch of one example per key, of one common length or of one length each."""
        each = 0 if jnp.ndim(length) else None
        return jax.vmap(lambda key, length: self.example(key, length, max_length), (0, each))(keys, length)

    @checked
    def batch(self, key: PRNGKeyArray, batch_size: Size, length: Int[Array, '*B'] | Size, max_length: Size) -> Batch:
        """Batch of `batch_size` examples of one common length or of one length each, padded to the tokens of
        `max_length`. `batch_size` and `max_length` are static, but `length` may be traced: one compiled program serves
        every length up to `max_length`."""
        if isinstance(length, int) and length > max_length:
            raise UserError(f'batch: length={length} must be at most max_length={max_length}')
        return self.examples(jax.random.split(key, batch_size), length, max_length)

    def cut(self, batch: Batch, max_length: int) -> Batch:
        """Same batch with its padding cut to `max_length`, which no example may exceed."""
        parts = 2 if self.halves else 1
        slots = self.num_tokens(max_length) // parts

        def shorter(x):
            return x.reshape(len(x), parts, -1)[..., :slots].reshape(len(x), -1)

        return jax.tree.map(shorter, batch)


def written(symbols: list[str], alphabet: Symbols[str]) -> str:
    """Text of `symbols` in a row, separated by blanks if the alphabet contains words."""
    return _gap(alphabet).join(symbols)


def _gap(alphabet: Symbols[str]) -> str:
    return '' if max(map(len, alphabet)) == 1 else ' '


EMPTY = -1
"""Marker of slots in which a `Sequence` writes nothing."""
BOS = '$'
"""Printed form of the symbol at the beginning of a sequence."""


def digits(number: Int[Array, '*shape'], width: int) -> Int[Array, '*shape {width}']:
    """Decimal digits of numbers below 10^width, without leading zeros: 507 -> EMPTY 5 0 7."""
    places = [10**exponent for exponent in reversed(range(width))]
    written = [jnp.where((number >= place) | (place == 1), number // place % 10, EMPTY) for place in places]
    return jnp.stack(written, axis=-1)


class Sequence(Task):
    """Task whose prompt and answer form one sequence for a causal model, which predicts each answer symbol from all
    symbols before it. Exact match under the true prefix equals exact match of greedy generation, because both read the
    same symbols up to the first mistake. Accuracy per symbol differs: after a mistake, the true prefix helps.

    Subclasses set `alphabet`, which prompt and answer share. They define `sample`, and `prompt_length` and
    `output_length`: the largest numbers of symbols of an example of `length`. With `bos=True`, the symbol BOS comes
    before the prompt, and is not counted in `prompt_length`."""

    metric = 'exact_match'
    baseline_per_position = False

    def __init__(self, *, bos: bool = False, causal: bool = False):
        super().__init__(causal=causal)
        if not causal:
            raise UserError('the task is a sequence for causal models - set model.causal=True')
        self.bos = bos
        if bos:
            self.alphabet = (*self.alphabet, BOS)
        self.inputs = self.num_classes = len(self.alphabet)

    @property
    def vocab_size(self) -> int:
        """Number of symbols; there is no placeholder."""
        return self.inputs

    def prompt_length(self, length):
        """Largest number of symbols in the prompt of an example of `length`."""
        raise NotImplementedError

    def num_tokens(self, length: Int[Array, ''] | int):
        return self.bos + self.prompt_length(length) + self.output_length(length) - 1

    def sample(self, key, length, max_length):
        """One example: the symbols of its prompt and those of its answer, in arrays of any size. EMPTY slots are
        removed, so examples may differ in size and arrays may have gaps."""
        raise NotImplementedError

    @property
    def stop(self):
        return (self.alphabet.index('.'),) if '.' in self.alphabet else ()

    def encode(self, text):
        """Tokens of a prompt in the task's symbols, such as `'31 4 15 >'`; blanks may be left out between single
        characters, and BOS at the beginning."""
        tokens = self.tokenize(text)
        begin = [self.symbol(BOS)] if self.bos else []
        return tokens if begin and tokens[:1] == begin else begin + tokens

    def symbol(self, name: str) -> int:
        """Index of a symbol; EMPTY for the empty string."""
        return self.alphabet.index(name) if name else EMPTY

    def concat(self, *parts: Int[Array, '... _'] | str) -> Int[Array, '... _']:
        """Concatenation along the last axis of symbols, given by name, and arrays [.., W]; leading axes are
        broadcast."""
        arrays = [jnp.full((1,), self.symbol(part)) if isinstance(part, str) else part for part in parts]
        rows = jnp.broadcast_shapes(*(array.shape[:-1] for array in arrays))
        return jnp.concatenate([jnp.broadcast_to(array, (*rows, array.shape[-1])) for array in arrays], axis=-1)

    def listed(
        self, items: Int[Array, '... N W'], real: Bool[Array, '*rows N'], separator: str = ''
    ) -> Int[Array, '*rows _']:
        """Symbols of the `real` items in a row, with a separator between two items."""
        first = jnp.cumsum(real, axis=-1) == 1
        between = jnp.where(first, EMPTY, self.symbol(separator))[..., None]
        written = jnp.where(real[..., None], self.concat(between, items), EMPTY)
        return written.reshape(*real.shape[:-1], -1)

    def example(self, key, length, max_length):
        prompt, answer = self.sample(key, length, max_length)
        if self.bos:
            prompt = self.concat(BOS, prompt)
        symbols = jnp.concatenate([prompt, answer])
        real = symbols != EMPTY
        start, end = jnp.sum(prompt != EMPTY), jnp.sum(real)
        slots = self.num_tokens(max_length)
        place = jnp.where(real, jnp.cumsum(real) - 1, slots + 1)
        sequence = jnp.zeros(slots + 1, jnp.int32).at[place].set(symbols, mode='drop')
        slot = jnp.arange(slots)
        is_answer = (slot >= start - 1) & (slot < end - 1)
        # The slots after a short example hold no symbols. They may stay valid: no slot that counts sees later ones.
        return Batch(
            tokens=jnp.where(slot < end - 1, sequence[:-1], 0),
            valid=slot < self.num_tokens(length),
            targets=jnp.where(is_answer, sequence[1:], 0),
            loss_mask=is_answer,
            metric_mask=is_answer,
            prefix=slot < start,
        )

    def readable(self, example):
        tokens, targets, is_answer = map(jax.device_get, (example.tokens, example.targets, example.metric_mask))
        symbols = [*self.alphabet]
        prompt, answer = tokens[: is_answer.argmax() + 1], targets[is_answer]
        return written([symbols[x] for x in prompt], symbols), written([symbols[x] for x in answer], symbols)
