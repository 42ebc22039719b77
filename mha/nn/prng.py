"""Cheap random numbers for the draws of a forward pass: a generator that works with the functions of `jax.random`.

The default generator of jax, Threefry, is a loop of twenty rounds. It adds a dozen kernels to compile wherever a key is
split or a number drawn, and the bits of dropout alone take a seventh of a small model's training step on a CPU. Here
bits are a hash of the key and an index. They are computed where they are used, in the forward and the backward pass,
and never stored.

Each example has its own key (`rows`), so that a device with a part of a batch draws the same numbers as a device with
the whole batch.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.random import define_prng_impl
from jaxtyping import Array, Int, Key, PRNGKeyArray

FOLDED, SPLIT = (0x9E3779B9, 0x85EBCA6B), (0xC2B2AE35, 0x27D4EB2F)
"""Constants that make the two words of a key differ, and keys made by `split` differ from drawn bits."""


class _Stream(nnx.RngStream):
    """Stream that counts its keys in Python, not in an array."""

    def __init__(self, key: PRNGKeyArray):
        super().__init__(key, tag='default')
        self.drawn = 0

    def __call__(self) -> PRNGKeyArray:
        self.drawn += 1
        return jax.random.fold_in(self.key[...], self.drawn - 1)


def streams(key: PRNGKeyArray) -> nnx.Rngs:
    """Same keys as `nnx.Rngs(key)`, in less time inside a trace. When flax updates a traced counter, jax searches all
    operations so far: minutes for a model of hundreds of layers."""
    rngs = nnx.Rngs(key)
    rngs.default = _Stream(key)  # pyright: ignore[reportAttributeAccessIssue] - set by its constructor
    return rngs


def beside(rngs: nnx.Rngs) -> nnx.Rngs:
    """Streams for parameters that not all variants of a model have. They leave `rngs` as it is, so that all other
    parameters have the same initial values in every variant."""
    return nnx.Rngs(jax.random.fold_in(nnx.clone(rngs).params(), FOLDED[0]))


def cheap(key: PRNGKeyArray) -> PRNGKeyArray:
    """Key of the cheap generator, derived from `key` and used like any other key. It draws other numbers than `key`."""
    data = jax.random.key_data(key).reshape(-1)[-2:]
    return jax.random.wrap_key_data(_fold_in(data, 0), impl=HASH)


def rows(key: Key[Array, '*B'], count: int) -> Key[Array, 'B']:
    """Keys of `count` examples. If `jax.shard_map` has split a batch over devices, the keys of the examples on this
    device. Keys that already have an axis [B] are returned unchanged."""
    if key.ndim:
        return key
    axes = jax.sharding.get_abstract_mesh().manual_axes
    first = count * jax.lax.axis_index(axes) if axes else 0
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(count))


def fold_in(key: Key[Array, '*B'], data: int) -> Key[Array, '*B']:
    """`jax.random.fold_in`, for one key or one key per example."""
    return jax.vmap(jax.random.fold_in, (0, None))(key, data) if key.ndim else jax.random.fold_in(key, data)


def split(key: Key[Array, '*B'], count: int) -> Key[Array, 'N *B']:
    """`jax.random.split`, for one key or one key per example."""
    return jax.vmap(jax.random.split, (0, None), 1)(key, count) if key.ndim else jax.random.split(key, count)


def shuffle(key: PRNGKeyArray, count: int) -> Int[Array, 'N']:
    """Numbers below `count` in random order, sorted once by random bits. `jax.random.permutation` sorts twice, in case
    two numbers draw the same bits. Under a cheap key this never happens, and under other keys to one pair in 2^32,
    which keeps its order."""
    return jnp.argsort(jax.random.bits(key, (count,), 'uint32'))


def _seed(seed):
    return _fold_in(jnp.zeros(2, jnp.uint32), seed)


def _fold_in(key, data):
    """Affine map of the key: two operations for `data` known at compile time. The hash of `_random_bits` does the
    mixing."""
    words = jnp.array(FOLDED, jnp.uint32)
    return key * words + _mixed(words ^ jnp.asarray(data).astype(jnp.uint32))


def _split(key, shape):
    words = jnp.array(SPLIT, jnp.uint32).reshape([1] * len(shape) + [2])
    return _hash(key, _indices(shape)[..., None] ^ words)


def _random_bits(key, bit_width, shape):
    if bit_width == 64:
        high, low = (_random_bits(part, 32, shape).astype(jnp.uint64) for part in _split(key, (2,)))
        return high << 32 | low
    return (_hash(key, _indices(shape)) >> (32 - bit_width)).astype(jnp.dtype(f'uint{bit_width}'))


def _indices(shape):
    return jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)


def _hash(key, index):
    return _mixed(_mixed(index + key[0]) ^ key[1])


def _mixed(x):
    """Wellons' `lowbias32`: a permutation of the 32-bit numbers that flips half of the output bits per input bit."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


HASH = define_prng_impl(
    key_shape=(2,), seed=_seed, split=_split, random_bits=_random_bits, fold_in=_fold_in, name='hash', tag='hash'
)
