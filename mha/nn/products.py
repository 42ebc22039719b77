"""Products of matrices in the order that compilers are fast at: [.., M, K] @ [.., K, N], and the larger array is never
transposed, neither in the forward nor in the backward pass."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


@jax.custom_vjp
def inner(q: Float[Array, '*b T W'], k: Float[Array, '*b S W']) -> Float[Array, '*b T S']:
    """The inner products of the rows of q with those of k, in float32."""
    return jnp.matmul(q, k.swapaxes(-1, -2), preferred_element_type=jnp.float32)


def _inner_forward(q, k):
    return inner(q, k), (q, k)


def _inner_backward(saved, ct):
    q, k = saved
    return (ct @ k).astype(q.dtype), _summed(ct, q).astype(k.dtype)


@jax.custom_vjp
def mix(weights: Float[Array, '*b T S'], v: Float[Array, '*b S V']) -> Float[Array, '*b T V']:
    """Sums of the rows of v under weights."""
    return weights.astype(v.dtype) @ v


def _mix_forward(weights, v):
    return mix(weights, v), (weights, v)


def _mix_backward(saved, ct):
    weights, v = saved
    return inner(ct, v).astype(weights.dtype), _summed(weights, ct).astype(v.dtype)


def _summed(left, right):
    """left^T right, the narrower of the two transposed."""
    if left.shape[-1] <= right.shape[-1]:
        return left.swapaxes(-1, -2) @ right
    product = right.swapaxes(-1, -2) @ left
    return jax.lax.optimization_barrier(product).swapaxes(-1, -2)  # else XLA swaps the two back


@jax.custom_vjp
def softmax(logits: Float[Array, '*b T S'], allowed: Bool[Array, '*#b #T S']) -> Float[Array, '*b T S']:
    """The softmax over the keys allowed; its backward pass needs the weights alone, which `mix` keeps too."""
    # The mask comes after the bias and never by addition: sums of large negatives overflow to NaN rows.
    return jax.nn.softmax(jnp.where(allowed, logits, -1e30), axis=-1)


def _softmax_forward(logits, allowed):
    weights = softmax(logits, allowed)
    return weights, weights


def _softmax_backward(weights, ct):
    return weights * (ct - (weights * ct).sum(-1, keepdims=True)), None


inner.defvjp(_inner_forward, _inner_backward)
mix.defvjp(_mix_forward, _mix_backward)
softmax.defvjp(_softmax_forward, _softmax_backward)


def linear(
    x: Float[Array, '...'], kernel: Float[Array, '...'], dimension_numbers: Any = (((-1,), (0,)), ((), ())), **_: Any
) -> Float[Array, '...']:
    """The last axes of x times the first ones of kernel: as many as the first of `dimension_numbers` has, so that the
    linear layers of `nnx` take it as their `dot_general`."""
    count = len(dimension_numbers[0][0])
    rows, inputs, outputs = x.shape[:-count], x.shape[-count:], kernel.shape[count:]
    y = mix(x.reshape(-1, math.prod(inputs)), kernel.reshape(-1, math.prod(outputs)))
    return y.reshape(*rows, *outputs)
