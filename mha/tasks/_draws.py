"""Random strings whose symbols are not independent."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from mha.spec import UserError


def bits(
    key: PRNGKeyArray, ones: Int[Array, ''] | int, length: Int[Array, ''] | int, max_length: int
) -> Int[Array, '{max_length}']:
    """String of `length` bits with exactly `ones` ones, all of them equally likely; zeros after it."""
    real = jnp.arange(max_length) < length
    order = jnp.argsort(jnp.where(real, jax.random.uniform(key, (max_length,)), 2.0))
    return jnp.zeros(max_length, jnp.int32).at[order].set((jnp.arange(max_length) < ones).astype(jnp.int32))


def uneven_bits(key: PRNGKeyArray, length: Int[Array, ''] | int, max_length: int) -> Int[Array, '{max_length}']:
    """String of `length` bits; its number of zeros is uniform in 0 .. length, without length / 2."""
    number_key, place_key = jax.random.split(key)
    even = length % 2 == 0
    zeros = jax.random.randint(number_key, (), 0, length + 1 - even)
    zeros += even & (zeros >= length // 2)
    return bits(place_key, length - zeros, length, max_length)


def distinct(key: PRNGKeyArray, symbols: int, max_length: int) -> Int[Array, '{max_length}']:
    """Symbols among 0 .. symbols - 1 of which no two are equal."""
    if max_length > symbols:
        raise UserError(f'there are {symbols} distinct symbols - set symbols={max_length} for so long an example')
    return jax.random.permutation(key, symbols)[:max_length]


def each_once(key: PRNGKeyArray, number: int, count: Int[Array, ''] | int, most: int) -> Int[Array, '{number}']:
    """Random indices below `count`, which is at most `most`: no two are equal as long as there are enough, after that
    all occur equally often."""
    order = jnp.argsort(jnp.where(jnp.arange(most) < count, jax.random.uniform(key, (most,)), 2.0))
    return order[jnp.arange(number) % count]


def distinct_words(key: PRNGKeyArray, number: int, letters: int, width: int) -> Int[Array, '{number} {width}']:
    """Words of `width` letters among 0 .. letters - 1, of which no two are equal. At least 4 `number` words must exist,
    so that twice as many draws suffice."""
    draws = jax.random.randint(key, (2 * number + 16, width), 0, letters)
    new = first_equal(draws) == jnp.arange(len(draws))
    place = jnp.where(new, jnp.cumsum(new) - 1, number)
    return jnp.zeros((number, width), jnp.int32).at[place].set(draws, mode='drop')


def first_equal(words: Int[Array, 'N W']) -> Int[Array, 'N']:
    """Index of the first word that is equal to each word, which may be itself."""
    order, slot = jnp.lexsort(words.T), jnp.arange(len(words))  # the sort is stable
    again = jnp.all(words[order[1:]] == words[order[:-1]], axis=-1)
    begin = jax.lax.cummax(jnp.where(jnp.append(False, again), 0, slot))
    return jnp.zeros_like(slot).at[order].set(order[begin])


def duplicated(key: PRNGKeyArray, tokens: Int[Array, 'N'], length: Int[Array, ''] | int, n: int) -> Int[Array, 'N']:
    """Same tokens, but a random n-gram of the first `length` is a copy of one before it, which does not overlap it."""
    one_key, step_key = jax.random.split(key)
    places = jnp.maximum(length - 2 * n + 2, 2)
    one = jax.random.randint(one_key, (), 0, places)
    other = (one + jax.random.randint(step_key, (), 1, places)) % places
    first, second = jnp.minimum(one, other), jnp.maximum(one, other) - 1 + n
    copied = tokens.at[second + jnp.arange(n)].set(tokens[first + jnp.arange(n)], mode='drop')
    return jnp.where(length >= 2 * n, copied, tokens)


def shuffled(key: PRNGKeyArray, symbols: Int[Array, 'N'], length: Int[Array, ''] | int) -> Int[Array, 'N']:
    """First `length` symbols in random order, all orders equally likely; the rest as it was."""
    draw = jax.random.uniform(key, symbols.shape)
    return symbols[jnp.argsort(jnp.where(jnp.arange(symbols.size) < length, draw, 2.0))]
