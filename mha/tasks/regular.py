"""Legal next symbols of regular languages (Bhattmishra et al., 2020, arXiv:2009.11264; Huang et al., 2024,
arXiv:2410.02140): after each symbol of a word, which symbols may come next, and may the word end?

    tomita4, no 000:    $ 0 1 0 0 1    01. 01. 01. 1. 01.
    d2:                 $ a a b b      ab b ab a.

`$` begins a word, `.` is its end. The answer at a symbol is a set: all that may follow in words of the language.

    tomita1 .. tomita7     1*; (10)*; no odd run of 0 right behind an odd run of 1; no 000; even numbers of 0 and of 1;
                           as many 0 as 1 modulo 3; 0*1*0*1*  (Tomita, 1982)
    d2, d3, d4, d12        D_n = (a D_n-1 b)*, where D_0 is the empty word: brackets at most n deep
    (aa)*  (aaaa)*  (abab)*  aa*bb*cc*dd*ee*  {a,b}*d{b,c}*  {0,1,2}*02*

Score. Each set that occurs in a language is a class of one softmax, and a word is right if all its sets are. Huang et
al. do the same. Bhattmishra et al. predict each symbol with a sigmoid. A set is right if all its symbols are, so exact
match asks the same of both; the loss differs, and one that never occurs cannot be answered here.

Length is that of the word, without `$`. Where a language has no words of a length, they have the next shorter length,
or else the shortest one: those of (aaaa)* have 4, 8, 12, .. symbols, so 11 becomes 8, and 3 becomes 4.

Draws. All words of a length are equally likely. With `draw='moves'`, all symbols are, at every step, after which the
word can still end in time: words of 0*1*0*1* then end in a long run, while the former have runs of any lengths. The
published generators differ from language to language: coins for tomita4 to tomita6, runs of uniform length for tomita3
and tomita7, parts nested at about 3/4 of the length for D_n. For the last two languages they draw the length before the
d or the 0 uniformly, then that of the tail: {0,1,2}*02* has longer tails of 2 there than here.

Labels. With `labels='released'` those of three languages are as Huang et al. released them. tomita3: a 0 that makes a
run odd behind an odd run of 1 is not legal, though another 0 may follow. (abab)*: whether the word may end.
{0,1,2}*02*: it may not end at a 0. The release also asks for constants at `$` and at the end, which change no score.

Published: trained on lengths up to 50, tested on 51 to 150.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from mha import spec
from mha.spec import UserError
from mha.tasks.base import BOS, Batch, Task

END = '.'


def _nested(depth: int) -> tuple[str, ...]:
    """The automaton of D_n: its state is the number of open brackets."""
    opens = [f'a:{state + 1} ' * (state < depth) for state in range(depth + 1)]
    return tuple(more + (f'b:{state - 1}' if state else END) for state, more in enumerate(opens))


def _repeated(word: str) -> tuple[str, ...]:
    """The automaton of `(word)*`: its state is the place within the word."""
    moves = [f'{symbol}:{(state + 1) % len(word)}' for state, symbol in enumerate(word)]
    return f'{moves[0]} {END}', *moves[1:]


LANGUAGES = {
    'tomita1': ('1:0 .',),
    'tomita2': _repeated('10'),
    'tomita3': ('0:0 1:1 .', '0:2 1:0 .', '0:3', '0:2 1:1 .'),
    'tomita4': ('0:1 1:0 .', '0:2 1:0 .', '1:0 .'),
    'tomita5': ('0:1 1:2 .', '0:0 1:3', '0:3 1:0', '0:2 1:1'),
    'tomita6': ('0:1 1:2 .', '0:2 1:0', '0:0 1:1'),
    'tomita7': ('0:0 1:1 .', '0:2 1:1 .', '0:2 1:3 .', '1:3 .'),
    'd2': _nested(2),
    'd3': _nested(3),
    'd4': _nested(4),
    'd12': _nested(12),
    '(aa)*': _repeated('aa'),
    '(aaaa)*': _repeated('aaaa'),
    '(abab)*': _repeated('abab'),
    'aa*bb*cc*dd*ee*': ('a:1', 'a:1 b:2', 'b:2 c:3', 'c:3 d:4', 'd:4 e:5', 'e:5 .'),
    '{a,b}*d{b,c}*': ('a:0 b:0 d:1', 'b:1 c:1 .'),
    '{0,1,2}*02*': ('0:1 1:0 2:0', '0:1 1:0 2:2 .', '0:1 1:0 2:2 .'),
}
"""Automata. Each state is a list of the moves `symbol:state` that lead to a word, and `.` if the word may end. The
first state begins."""
RELEASED = {
    'tomita3': ('01', '1', '0', '1'),
    '(abab)*': ('end', 'no', 'no', 'no'),
    '{0,1,2}*02*': ('012', '012', '012.'),
}
"""Labels of the states where the release has others."""


class Regular(Task):
    """Words of `language` in, the set of legal next symbols after each symbol out, for causal models."""

    level = 'regular'
    metric = 'exact_match'
    baseline_per_position = False

    def __init__(
        self,
        language: str = 'tomita4',
        draw: Literal['strings', 'moves'] = 'strings',
        labels: Literal['defined', 'released'] = 'defined',
        *,
        causal: bool = False,
    ):
        super().__init__(causal=causal)
        spec.choose(language, LANGUAGES, 'language')
        if not causal:
            raise UserError('the task is for causal models, which see no later symbols - set model.causal=True')
        self.language, self.draw = language, draw
        symbols, following, _ = automaton(language)
        self.alphabet = (*symbols, BOS)
        self.inputs = len(self.alphabet)
        sets = [''.join(move[0] for move in state.split()) for state in LANGUAGES[language]]
        named = RELEASED.get(language, sets) if labels == 'released' else sets
        self.answers = tuple(dict.fromkeys(named[state] for state in sorted({*following[following >= 0].tolist()})))
        self.num_classes = len(self.answers)
        # A state that only begins words has no class, and is never asked for.
        self.label = tuple(self.answers.index(name) if name in self.answers else -1 for name in named)
        self.shortest_word, self.step = possible(language)

    @property
    def vocab_size(self):
        """Number of symbols and BOS; there is no placeholder."""
        return self.inputs

    def word_length(self, length):
        """The nearest length that words have, if possible not above `length`."""
        steps = (length - self.shortest_word) // self.step
        return self.shortest_word + self.step * steps * (steps > 0)

    def input_length(self, length):
        return 1 + self.word_length(length)

    def output_length(self, length):
        return self.word_length(length)

    def num_tokens(self, length):
        return self.input_length(length)

    def sample(self, key, length, max_length):
        length, max_length = self.word_length(length), self.word_length(max_length)
        shares = jnp.asarray(cumulative(self.language, self.draw, max_length), jnp.float32)
        following, label = jnp.asarray(automaton(self.language)[1]), jnp.asarray(self.label)

        def move(state, slot_and_draw):
            slot, draw = slot_and_draw
            symbol = jnp.sum(draw >= shares[jnp.maximum(length - slot, 1), state, :-1])
            state = following[state, symbol]
            return state, (symbol, label[state])

        slots = jnp.arange(max_length), jax.random.uniform(key, (max_length,))
        _, (x, y) = jax.lax.scan(move, jnp.int32(0), slots)
        return jnp.append(self.inputs - 1, x), y

    def example(self, key, length, max_length):
        x, y = self.sample(key, length, max_length)
        slot = jnp.arange(x.size)
        valid = slot < self.input_length(length)
        asks = valid & (slot > 0)
        tokens, targets = jnp.where(valid, x, 0), jnp.where(asks, jnp.append(0, y), 0)
        return Batch(tokens=tokens, valid=valid, targets=targets, loss_mask=asks, metric_mask=asks)


def automaton(language: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Symbols of a language; the state [S, A] after each symbol in each state, or -1; which states [S] may end."""
    moves = [dict(move.split(':') for move in state.split() if move != END) for state in LANGUAGES[language]]
    symbols = ''.join(sorted({symbol for state in moves for symbol in state}))
    following = np.array([[int(state.get(symbol, -1)) for symbol in symbols] for state in moves], np.int32)
    return symbols, following, np.array([END in state for state in LANGUAGES[language]])


def counts(language: str, longest: int) -> np.ndarray:
    """Number of words [longest + 1, S] with so many symbols from each state to an end, divided by the largest."""
    _, following, ends = automaton(language)
    found = [ends.astype(float)]
    for _ in range(longest):
        words = np.where(following >= 0, found[-1][following], 0).sum(1)
        found.append(words / max(words.max(), 1))
    return np.array(found)


def possible(language: str) -> tuple[int, int]:
    """Length of the shortest word that is not empty, and the step from each length of words to the next."""
    first, second, *_ = (length for length, words in enumerate(counts(language, 30)[:, 0]) if words and length)
    return first, second - first


@functools.cache
def cumulative(language: str, draw: str, longest: int) -> np.ndarray:
    """Cumulative shares [longest + 1, S, A] of the symbols that may be next, by the number of symbols left."""
    _, following, _ = automaton(language)
    words = counts(language, longest)
    words = words if draw == 'strings' else (words > 0).astype(float)
    shares = np.where(following >= 0, words[:-1][:, following], 0).cumsum(-1)
    shares = np.concatenate([shares[:1], shares])  # with no symbol left, there is no next one
    return shares / np.maximum(shares[..., -1:], 1e-300)
