"""Needles at random places of a haystack: short strings among letters that mean nothing."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray


def scattered(
    key: PRNGKeyArray, needles: Int[Array, 'N W'], filler: Int[Array, 'T'], letters: Int[Array, ''] | int
) -> Int[Array, 'T']:
    """Needles in their order among `letters` letters. The place of each is uniform, whatever those of the others."""
    places = jax.random.randint(key, needles.shape[:1], 0, letters + 1)
    return placed(jnp.sort(places), needles, filler)


def placed(places: Int[Array, 'N'], needles: Int[Array, 'N W'], filler: Int[Array, 'T']) -> Int[Array, 'T']:
    """Filler with needles in it; `places` has the number of letters before each, in ascending order."""
    count, width = needles.shape
    start = places + width * jnp.arange(count)
    slot = jnp.arange(filler.size)
    needle = jnp.maximum(jnp.searchsorted(start, slot, side='right') - 1, 0)
    index = slot - start[needle]
    return jnp.where((index >= 0) & (index < width), needles[needle, jnp.clip(index, 0, width - 1)], filler)
