"""A model whose heads are set by hand, so that one knows what every head does.

    layer 0   head 0: previous token     1 and 2: two tokens before, equal heads     3: uniform, adds nothing
    layer 1   head 0: induction          1: duplicate token      2: first token      3: its own token

The induction head reads what the previous-token head writes: the model repeats a sequence that it has read once.
Channels of the residual stream: token, position, token before, answer; all are one-hot.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import mha

SYMBOLS, TOKENS, HEADS, HEAD_DIM = 8, 16, 4, 24
PREVIOUS, PAIR, USELESS, INDUCTION, DUPLICATE, FIRST, OWN = (
    (0, 0),
    ((0, 1), (0, 2)),
    (0, 3),
    (1, 0),
    (1, 1),
    (1, 2),
    (1, 3),
)
"""Layers and heads."""
SHARP = 100.0
"""Difference between the logit of the key that a head looks for and those of others, up to a norm."""

_TOKEN, _POSITION, _BEFORE, _ANSWER = (slice(0, 8), slice(8, 24), slice(24, 32), slice(32, 40))


def model() -> mha.Encoder:
    """Causal encoder of `SYMBOLS` symbols and up to `TOKENS` tokens, without feed-forward layers."""
    made = mha.Encoder(
        vocab_size=SYMBOLS,
        num_classes=SYMBOLS,
        max_len=TOKENS,
        layers=2,
        dim=40,
        heads=HEADS,
        head_dim=HEAD_DIM,
        position='learned',
        causal=True,
        norm='pre',
        norm_kind='rms',
        mlp='none',
        dropout_rate=0.0,
        rngs=nnx.Rngs(0),
    )
    made.embedding.embedding[...] = _rows(SYMBOLS, _TOKEN) / made.scale
    made.positions[0].table[...] = _rows(TOKENS, _POSITION)
    made.head.kernel[...] = 5 * _rows(SYMBOLS, _ANSWER).T
    steps = {PREVIOUS: 1, PAIR[0]: 2, PAIR[1]: 2, OWN: 0}
    token, position = np.eye(SYMBOLS, HEAD_DIM), np.eye(TOKENS, HEAD_DIM)
    for layer, block in enumerate(made.blocks):
        weights = {name: np.zeros((40, HEADS, HEAD_DIM)) for name in ('query', 'key', 'value')}
        out = np.zeros((HEADS, HEAD_DIM, 40))
        for head in range(HEADS):
            query, key, value = (weights[name][:, head] for name in weights)
            place = layer, head
            if place == USELESS:
                continue
            value[_TOKEN] = token
            out[head][:, _BEFORE if place == PREVIOUS else _ANSWER] = token.T * (
                1 if place in (PREVIOUS, INDUCTION) else 0.1
            )
            if place in steps:
                query[_POSITION], key[_POSITION] = SHARP * np.roll(position, steps[place], 0), position
                query[_POSITION][: steps[place]] = 0
            elif place == FIRST:
                query[_POSITION, 0], key[_POSITION][0, 0] = SHARP, 1
            else:
                query[_TOKEN], key[_BEFORE if place == INDUCTION else _TOKEN] = SHARP * token, token
            if place == INDUCTION:  # what the first token wrote there is its own: nothing is before it
                key[_POSITION][0, :SYMBOLS] = -1
            if place == DUPLICATE:  # but not its own slot
                shifted = np.roll(position, SYMBOLS, 1)
                query[_POSITION], key[_POSITION] = -2 * SHARP * shifted, shifted
        for name, kernel in weights.items():
            getattr(block.attention, name).kernel[...] = jnp.asarray(kernel, jnp.float32)
        block.attention.out.kernel[...] = jnp.asarray(out, jnp.float32)
    return made


def tokens(examples: int = 4, seed: int = 0) -> jax.Array:
    """Sequences of all symbols in random order, and the same again [examples, TOKENS]."""
    keys = jax.random.split(jax.random.key(seed), examples)
    once = jax.vmap(lambda key: jax.random.permutation(key, SYMBOLS))(keys)
    return jnp.concatenate([once, once], axis=1)


def _rows(count, channels):
    rows = np.zeros((count, 40), np.float32)
    rows[:, channels] = np.eye(count, dtype=np.float32)
    return jnp.asarray(rows)
