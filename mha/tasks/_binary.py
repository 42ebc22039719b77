"""Binary numbers of any size, larger than machine integers, as arrays of bits with the lowest bit first."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

END = 2
"""Symbol that ends a number and separates two numbers."""


def positive(key: PRNGKeyArray, length: Int[Array, ''] | int, max_length: int) -> Int[Array, 'N']:
    """Random number, uniform in 1 .. 2^length - 1, as bits [max_length]. With more than 30 bits, numbers whose lowest
    30 bits are all zero, one in a billion, are never drawn."""
    low_key, high_key = jax.random.split(key)
    slot = jnp.arange(max_length)
    low = jax.random.randint(low_key, (), 1, 1 << jnp.clip(length, 1, 30))
    high = jax.random.randint(high_key, (max_length,), 0, 2)
    return jnp.where(slot < length, jnp.where(slot < 30, low >> jnp.minimum(slot, 29) & 1, high), 0)


def operands(
    key: PRNGKeyArray, length: Int[Array, ''] | int, max_length: int
) -> tuple[Int[Array, 'N'], Int[Array, 'N'], Int[Array, 'N']]:
    """Input `n 2 m` of `length` symbols, then n and m alone. Both are positive, and the place of the separator 2 is
    uniform. Lengths 1 and 2 have room for n only, which is uniform in 0 .. 2^length - 2; m is 0."""
    place_key, *keys = jax.random.split(key, 3)
    slot = jnp.arange(max_length)
    alone = length <= 2
    place = jnp.where(alone, length, jax.random.randint(place_key, (), 1, jnp.maximum(length - 1, 2)))
    n = positive(keys[0], place, max_length)
    n = jnp.where(alone & (slot < length), 1 - n, n)
    m = positive(keys[1], length - 1 - place, max_length)
    behind = m[jnp.clip(slot - place - 1, 0, max_length - 1)]
    return jnp.where(slot < place, n, jnp.where(slot == place, END, behind)), n, m


def carried(columns: Int[Array, 'N']) -> Int[Array, 'N']:
    """Bits of the number sum_i columns[i] 2^i, as many as there are columns."""

    def step(carry, column):
        total = carry + column
        return total >> 1, total & 1

    return jax.lax.scan(step, jnp.int32(0), columns)[1]


def terminated(bits: Int[Array, 'N'], longest: Int[Array, ''] | int) -> Int[Array, 'N']:
    """Symbols of a number of at most `longest` bits: no leading zeros, then the terminator, then zeros."""
    slot = jnp.arange(bits.size)
    count = jnp.minimum(jnp.maximum((bits * (slot + 1)).max(), 1), longest)
    return jnp.where(slot < count, bits, jnp.where(slot == count, END, 0))
