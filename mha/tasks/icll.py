"""In-context languages (Akyürek et al., 2024, arXiv:2401.12973): which letter may come next in strings of an unknown
automaton?

    rfhph|rlphp|r    f and l may follow

Every example has an automaton of its own: 4 to 12 states (`edges` + 1 to `states`) and an alphabet of 4 to 18 letters
(`edges` + 1 to `letters`), both uniform. From each state 1 to `edges` edges lead to different other states, with
different letters. Strings begin in one state, and at every state all edges are equally likely. Their lengths are
uniform in 1 .. `longest`, and `|` separates them. An example of length l has l symbols: strings until it is full.

The model predicts the next letter after each symbol, `|` included, except the last of a string. A prediction is right
if the automaton has such an edge, so that accuracy is the share of predictions that are legal, and exact match that of
examples without an illegal one. In the released code a state has at most 3 edges and strings have up to 49 letters,
each one less than its setting. Published: 10 to 19 strings, and automata in tests that are not in training; here
automata are drawn anew. The release minimises automata, which changes no string.
"""

import string
from typing import Annotated

import jax
import jax.numpy as jnp

from mha.arguments import Count, between
from mha.spec import UserError
from mha.tasks.base import Batch, Task


class Icll(Task):
    """Strings of a random automaton in, the next letters out, for causal models."""

    level = 'regular'
    baseline_per_position = False

    def __init__(
        self,
        states: Annotated[int, between(2, 100)] = 12,
        letters: Annotated[int, between(2, 26)] = 18,
        edges: Annotated[int, between(1, 25)] = 3,
        longest: Count = 49,
        *,
        causal: bool = False,
    ):
        super().__init__(causal=causal)
        if not causal:
            raise UserError('the task is for causal models, which see no later symbols - set model.causal=True')
        for name, most in (('states', states), ('letters', letters)):
            if most <= edges:
                raise ValueError(f'{name} must be above edges={edges}, not {most}')
        self.states, self.edges, self.longest = states, edges, longest
        self.inputs, self.num_classes = letters + 1, letters
        self.alphabet = string.ascii_lowercase[:letters] + '|'

    @property
    def vocab_size(self):
        """Number of letters and the separator; there is no placeholder."""
        return self.inputs

    @property
    def chance(self):
        """Share of the letters that are legal at a state, on average."""
        return (1 + self.edges) / 2 / self.num_classes

    def output_length(self, length):
        return length

    def num_tokens(self, length):
        return length

    def automaton(self, key):
        """Number of edges [S], and their letters and ends [S, E], of every state of a random automaton. The first state
        begins."""
        state_key, alphabet_key, count_key, *keys = jax.random.split(key, 5)
        shape, fewest = (self.states,), self.edges + 1
        state, letter = jnp.arange(self.states), jnp.arange(self.num_classes)
        real = state < jax.random.randint(state_key, (), fewest, self.states + 1)
        number_key, member_key = jax.random.split(alphabet_key)
        alphabet = jax.random.permutation(member_key, self.num_classes)
        number = jax.random.randint(number_key, (), fewest, self.num_classes + 1)
        member = jnp.zeros(letter.shape, bool).at[alphabet].set(letter < number)
        allowed = jnp.broadcast_to(member[None], shape + letter.shape), real[None] & (state[None] != state[:, None])
        letters, ends = (self.distinct(key, choices) for key, choices in zip(keys, allowed, strict=True))
        return jax.random.randint(count_key, shape, 1, self.edges + 1), letters, ends

    def distinct(self, key, allowed):
        """Columns [S, E] of distinct random choices among those `allowed` [S, N]."""
        draw = jnp.where(allowed, jax.random.uniform(key, allowed.shape), 2.0)
        return jnp.argsort(draw, axis=1)[:, : self.edges]

    def sample(self, key, length, max_length):
        """Strings [max_length + 1], and the legal letters after each symbol, as bits of an integer."""
        automaton_key, edge_key, size_key = jax.random.split(key, 3)
        counts, letters, ends = self.automaton(automaton_key)
        exists = jnp.arange(self.edges)[None] < counts[:, None]
        legal = jnp.sum(jnp.where(exists, 1 << letters, 0), axis=1)
        draw = jax.random.uniform(edge_key, (max_length + 1,))
        size = jax.random.randint(size_key, (max_length + 2,), 1, self.longest + 1)

        def move(carry, drawn):
            state, left = carry
            draw, size = drawn
            edge = jnp.minimum(jnp.floor(draw * counts[state]).astype(jnp.int32), counts[state] - 1)
            ended = left == 0
            symbol = jnp.where(ended, self.num_classes, letters[state, edge])
            state = jnp.where(ended, 0, ends[state, edge])
            return (state, jnp.where(ended, size, left - 1)), (symbol, legal[state])

        _, (symbols, after) = jax.lax.scan(move, (jnp.int32(0), size[0]), (draw, size[1:]))
        return symbols, after

    def example(self, key, length, max_length):
        symbols, legal = self.sample(key, length, max_length)
        valid = jnp.arange(max_length) < length
        asks = valid & (symbols[1:] < self.num_classes)
        return Batch(
            tokens=jnp.where(valid, symbols[:-1], 0),
            valid=valid,
            targets=jnp.where(asks, symbols[1:], 0),
            loss_mask=asks,
            metric_mask=asks,
            legal=jnp.where(asks, legal[:-1], 0),
        )
