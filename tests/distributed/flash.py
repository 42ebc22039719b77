"""A process of the tests on several devices: gradients of attention by interpreted kernels, each device on its own
examples, against those of the dense core on one device. Prints the largest difference."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mha import positions
from mha.cores.dense import Dense
from mha.cores.flash import Flash
from mha.machine import parallel
from mha.nn import masks
from mha.positions.base import Coords, Dims

EXAMPLES, TOKENS, HEADS, WIDTH = 8, 24, 2, 16
POSITION = positions.make('alibi', Dims(HEADS * WIDTH, HEADS, WIDTH, max_len=TOKENS), rngs=nnx.Rngs(0))
MASK = masks.causal()


def gradient(core):
    def loss(batch, weight):
        q, k, v = batch
        slots = jnp.arange(TOKENS)[None]
        x = q.reshape(len(q), TOKENS, HEADS * WIDTH)
        coords = Coords(q_pos=slots, k_pos=slots, visible=MASK.count(TOKENS, TOKENS), x=x, contiguous=True)
        out = core.attend(q @ weight, k, v, position=POSITION, coords=coords, mask=MASK, scale=WIDTH**-0.5)
        return (out**2).sum()

    return jax.grad(loss, argnums=1)


qkv = tuple(jax.random.normal(jax.random.key(i), (EXAMPLES, TOKENS, HEADS, WIDTH)) for i in range(3))
layout = parallel.Layout(parallel.make_mesh())
spread = jax.jit(layout.summed(gradient(Flash(interpret=True))))(qkv, jnp.eye(WIDTH))
assert len(spread.sharding.device_set) == layout.mesh.size > 1
whole = gradient(Dense())(qkv, jnp.eye(WIDTH))
print(np.abs(np.asarray(spread) - whole).max() / np.abs(whole).max())
