"""Products of matrices in the order that compilers are fast at: [.., M, K] @ [.., K, N], and the largest array is never
transposed, neither in the forward nor in the backward pass."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def inner(q: Float[Array, '*b T W'], k: Float[Array, '*b S W']) -> Float[Array, '*b T S']:
    """The inner products of the rows of q with those of k, in float32."""
    return jnp.matmul(q, k.swapaxes(-1, -2), preferred_element_type=jnp.float32)


def _inner_forward(q, k):
    return inner(q, k), (q, k)


def _inner_backward(saved, ct):
    q, k = saved
    return (ct @ k).astype(q.dtype), _left(q, ct).astype(k.dtype)


@jax.custom_vjp
def mix(weights: Float[Array, '*b T S'], v: Float[Array, '*b S V']) -> Float[Array, '*b T V']:
    """Sums of the rows of v under weights."""
    return weights.astype(v.dtype) @ v


def _mix_forward(weights, v):
    return mix(weights, v), (weights, v)


def _mix_backward(saved, ct):
    weights, v = saved
    return inner(ct, v).astype(weights.dtype), _left(ct, weights).astype(v.dtype)


def _left(rows, large):
    """large^T rows."""
    return (rows.swapaxes(-1, -2) @ large).swapaxes(-1, -2)


inner.defvjp(_inner_forward, _inner_backward)
mix.defvjp(_mix_forward, _mix_backward)
