"""Numbers as arrays of digits, least significant first, and the places that tokens have in them."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from mha.tasks.base import Batch


def number(
    key: PRNGKeyArray, size: Int[Array, ''] | int, places: int, base: int = 10
) -> tuple[Int[Array, '{places}'], Bool[Array, '{places}']]:
    """Digits [places] of a random number of `size` digits, and a mask of those that count. The first digit is not 0,
    unless it is the only one."""
    first_key, key = jax.random.split(key)
    place = jnp.arange(places)
    digit = jax.random.randint(key, (places,), 0, base)
    digit = jnp.where((place == size - 1) & (size > 1), jax.random.randint(first_key, (), 1, base), digit)
    return jnp.where(place < size, digit, 0), place < size


def carried(columns: Int[Array, '*rows W']) -> Int[Array, '*rows W']:
    """Digits of the numbers sum_p columns[.., p] 10^p, as many as there are columns."""

    def step(carry, column):
        total = carry + column
        return total // 10, total % 10

    carry = jnp.zeros(columns.shape[:-1], columns.dtype)
    return jnp.moveaxis(jax.lax.scan(step, carry, jnp.moveaxis(columns, -1, 0))[1], 0, -1)


def coupled(batch: Batch, marks: tuple[int, ...], equals: int, begins: bool) -> Batch:
    """One example of a sequence with the ids of position coupling as `pos`: p + 2 for a digit of place p = 0, 1, .., 1
    for the symbols `marks`, one of which follows every number, and 0 for other tokens. Numbers before `equals`, which
    is one of the marks, begin with the highest place, those after it with the lowest. `begins`: the first token is
    none of a number."""
    slot = jnp.arange(batch.tokens.size)
    read = (batch.prefix | batch.metric_mask) & (slot >= begins)
    mark = read & (batch.tokens[None] == jnp.array(marks)[:, None]).any(0)
    until_next = jax.lax.cummin(jnp.where(mark, slot, slot.size), reverse=True) - slot
    since_last = slot - jax.lax.cummax(jnp.where(mark, slot, 0))
    answered = slot >= jnp.argmax(mark & (batch.tokens == equals))
    return dataclasses.replace(batch, pos=jnp.where(read, 1 + jnp.where(answered, since_last, until_next), 0))
