"""Small encoders for the tests beside this file, and how they are called."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mha.model.encoder import Encoder

VOCAB, CLASSES, B, T, DIM, HEADS = 7, 3, 2, 6, 16, 2
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, VOCAB, (B, T)))
DEFAULTS = dict(vocab_size=VOCAB, num_classes=CLASSES, max_len=12, layers=2, dim=DIM, heads=HEADS, mlp_dim=24)


def make(seed=0, **options):
    return Encoder(**{**DEFAULTS, **options}, rngs=nnx.Rngs(seed))


def call(model, tokens=TOKENS, seed=0, **options):
    """The compiled call: one program per structure of the model and shape."""
    graph, state = nnx.split(model)
    static = tuple((name, value) for name, value in options.items() if isinstance(value, bool))
    arrays = {name: value for name, value in options.items() if not isinstance(value, bool)}
    return np.asarray(run(graph, static, state, tokens, arrays, jax.random.key(seed)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def run(graph, static, state, tokens, arrays, key):
    position, dropout = jax.random.split(key)
    rngs = nnx.Rngs(position=position, dropout=dropout)
    return nnx.merge(graph, state)(tokens, rngs=rngs, **arrays, **dict(static))


def shape(model, tokens=TOKENS):
    """The shape of the logits, of a call that is only traced."""
    graph, state = nnx.split(model)
    return jax.eval_shape(lambda state: nnx.merge(graph, state)(tokens, rngs=nnx.Rngs(position=0)), state).shape


def weights(model):
    state = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(state)}
