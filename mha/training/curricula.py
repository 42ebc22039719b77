"""Curricula: length of the batch at each training step, by spec such as `'reverse_exponential(tau=0.8)'`.

    fixed                 l = the longest length, or the one given
    uniform               P(l) = 1 / number of lengths
    reverse_exponential   P(l) ~ tau^l: short lengths are frequent
    linear                P(l) ~ l + offset: long lengths are frequent
    regular_increase      l = start + amount k, at most the longest;  k uniform in 0 .. floor(step / every), or the last

All curricula draw from `train.lengths`. All but `linear` are those of the code released with Delétang et al. (2023,
arXiv:2207.02098), except that `regular_increase` stops at the longest length, while theirs never stops. A draw depends
only on its key and the step, not on the number of steps of the run.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mha import arguments, spec
from mha.arguments import REACH, Length, Part, Steps, between


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """Curriculum of a run: `draw(key, step)` is the length of a step, `lengths` all that a run can draw, sorted."""

    lengths: tuple[int, ...]
    draw: Callable[[PRNGKeyArray, Int[Array, '']], Int[Array, '']]


def make(text: str, lengths: tuple[int, ...], steps: int) -> Curriculum:
    """Curriculum that a spec describes, over sorted `lengths` and a run of `steps`. Raises `UserError` for a wrong
    spec."""
    call, *more = spec.parse(text)
    if more:
        raise spec.UserError(f'curriculum {text!r}: curricula do not compose')
    function = CURRICULA[spec.choose(call.name, CURRICULA, 'curriculum')]
    return arguments.build(function, call, 'curriculum', lengths, steps)


def fixed(lengths: tuple[int, ...], steps: int, length: Length | None = None) -> Curriculum:
    """One fixed length, by default the longest."""
    length = lengths[-1] if length is None else length
    if length not in lengths:
        raise ValueError(f'length must be one of train.lengths, not {length}')
    return Curriculum((length,), lambda key, step: jnp.int32(length))


def uniform(lengths: tuple[int, ...], steps: int) -> Curriculum:
    """All lengths with equal probability."""
    return Curriculum(lengths, lambda key, step: jax.random.choice(key, jnp.array(lengths)))


def reverse_exponential(lengths: tuple[int, ...], steps: int, tau: Part = 0.9) -> Curriculum:
    """Lengths with probabilities that fall exponentially, so that short ones are frequent."""
    return weighted(lengths, tau ** (np.array(lengths, float) - lengths[0]))


def linear(lengths: tuple[int, ...], steps: int, offset: Annotated[float, between(-REACH, REACH)] = 0.0) -> Curriculum:
    """Lengths with probabilities that grow linearly, so that long ones are frequent. With `offset=-0.5` they grow like
    the number of pairs of numbers 1, 2, .. whose maximum is l, 2l - 1."""
    if lengths[0] + offset <= 0:
        raise ValueError(f'offset must be above -{lengths[0]}, minus the shortest length, not {offset}')
    return weighted(lengths, np.array(lengths, float) + offset)


def weighted(lengths: tuple[int, ...], weights: Float[np.ndarray, ' lengths']) -> Curriculum:
    """Lengths with probabilities proportional to `weights`."""
    chances = jnp.array(weights / weights.sum(), jnp.float32)
    return Curriculum(lengths, lambda key, step: jax.random.choice(key, jnp.array(lengths), p=chances))


def regular_increase(
    lengths: tuple[int, ...],
    steps: int,
    start: Length = 1,
    amount: Length = 1,
    every: Steps = 1000,
    sample_all: bool = True,
) -> Curriculum:
    """Lengths that grow from `start` by `amount` after `every` steps each, up to the longest. With `sample_all`, all
    lengths reached so far are equally likely; otherwise only the last one is used."""
    if start not in lengths:
        raise ValueError(f'start must be one of train.lengths, not {start}')
    reached = (*range(start, lengths[-1], amount), lengths[-1])[: 1 + (steps - 1) // every]
    if missing := sorted(set(reached) - set(lengths)):
        raise ValueError(f'start={start} and amount={amount} lead to length {missing[0]}, not one of train.lengths')

    def draw(key, step):
        last = jnp.minimum(step // every, len(reached) - 1)
        return jnp.array(reached)[jax.random.randint(key, (), 0, last + 1) if sample_all else last]

    return Curriculum(reached, draw)


CURRICULA = {each.__name__: each for each in (fixed, uniform, reverse_exponential, linear, regular_increase)}
