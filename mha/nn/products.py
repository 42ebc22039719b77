"""Products of matrices in the order that compilers are fast at: [.., M, K] @ [.., K, N], and the larger array is never
transposed, neither in the forward nor in the backward pass.

Their derivatives are of their own and still derivatives in every mode, to any order: each has a tangent, and the
tangent, a linear map, has a transpose (`linear_map`). A `jax.custom_vjp` would forbid forward mode and all that is
built on it, such as products with a Hessian."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float


def accurate(*arrays: Array) -> DTypeLike:
    """The type for logits, sums and the softmax: float32, or float64 where an array is."""
    return jnp.result_type(jnp.float32, *arrays)


def finite(x: Float[Array, '*shape']) -> Float[Array, '*shape']:
    """`x`, and 0 where it is NaN or infinite."""
    return jnp.where(jnp.isfinite(x), x, 0)


@jax.custom_jvp
def hideable(
    k: Float[Array, 'B S H W'], v: Float[Array, 'B S H V']
) -> tuple[Float[Array, 'B S H W'], Float[Array, 'B S H V']]:
    """Keys and values as a mask can hide them: a weight of 0 would not hide a NaN among values, so it moves to the
    key, whose logit the mask replaces."""
    return jnp.where(jnp.isfinite(v).all(-1, keepdims=True), k, jnp.nan), finite(v)


hideable.defjvp(lambda primals, tangents: (hideable(*primals), tangents))  # as nothing that is seen changes


# --- linear maps with transposes of their own ------------------------------------------------------------------------


def linear_map(function: Callable[..., Array], transpose: Callable[..., Array], x: Array, fixed: Array) -> Array:
    """`function(x, fixed)`, linear in x, of which reverse mode takes `transpose(ct, fixed)` for the cotangent of x."""
    return _linear.bind(x, fixed, function=function, transpose=transpose)


def _linear_jvp(primals, tangents, *, function, transpose):
    (x, fixed), (dx, dfixed) = primals, tangents
    out, terms = linear_map(function, transpose, x, fixed), []
    if type(dx) is not ad.Zero:
        terms.append(linear_map(function, transpose, dx, fixed))
    if type(dfixed) is not ad.Zero:
        terms.append(jax.jvp(lambda fixed: function(x, fixed), (fixed,), (dfixed,))[1])
    return out, ad.add_tangents(*terms) if len(terms) == 2 else terms[0]


def _linear_transpose(ct, x, fixed, *, function, transpose):
    if type(ct) is ad.Zero:
        return ad.Zero(x.aval), None
    return linear_map(transpose, function, ct, fixed).astype(x.aval.dtype), None


def _linear_batch(arrays, axes, *, function, transpose):
    (x, fixed), (at, of_fixed) = arrays, axes
    size = x.shape[at] if at is not None else fixed.shape[of_fixed]
    x = jnp.moveaxis(x, at, 0) if at is not None else jnp.broadcast_to(x, (size, *x.shape))
    function, transpose = (jax.vmap(each, (0, of_fixed)) for each in (function, transpose))
    return linear_map(function, transpose, x, fixed), 0


def _linear_shape(x, fixed, *, function, transpose):
    out = jax.eval_shape(function, *(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (x, fixed)))
    return x.update(shape=out.shape, dtype=out.dtype)


def _linear_value(x, fixed, *, function, transpose):
    return function(x, fixed)


_linear = Primitive('linear_map')
_linear.def_impl(_linear_value)
_linear.def_abstract_eval(_linear_shape)
mlir.register_lowering(_linear, mlir.lower_fun(_linear_value, multiple_results=False))
ad.primitive_jvps[_linear] = _linear_jvp
ad.primitive_transposes[_linear] = _linear_transpose
batching.primitive_batchers[_linear] = _linear_batch


def _product(product, pull_left, pull_right):
    """The tangent of `product(left, right)`; its two parts have the transposes `pull_left` and `pull_right`."""

    def of_right(right, left):
        return product(left, right)

    def rule(primals, tangents):
        (left, right), (d_left, d_right) = primals, tangents
        out, terms = product(left, right), []
        if not isinstance(d_left, SymbolicZero):
            terms.append(linear_map(product, pull_left, d_left, right))
        if not isinstance(d_right, SymbolicZero):
            terms.append(linear_map(of_right, pull_right, d_right, left))
        return out, sum(terms[1:], start=terms[0]) if terms else jnp.zeros_like(out)

    return rule


# --- products --------------------------------------------------------------------------------------------------------


@jax.custom_jvp
def inner(q: Float[Array, '*b T W'], k: Float[Array, '*b S W']) -> Float[Array, '*b T S']:
    """The inner products of the rows of q with those of k, in float32 at least. A row of k that is not finite makes its
    own column NaN and no gradient: what hides the column hides all of it."""
    return jnp.matmul(q, k.swapaxes(-1, -2), preferred_element_type=accurate(q, k))


@jax.custom_jvp
def mix(weights: Float[Array, '*b T S'], v: Float[Array, '*b S V']) -> Float[Array, '*b T V']:
    """Sums of the rows of v under weights."""
    return weights.astype(v.dtype) @ v


def _summed(left, right):
    """left^T right, the narrower of the two transposed."""
    if left.shape[-1] <= right.shape[-1]:
        return left.swapaxes(-1, -2) @ right
    product = right.swapaxes(-1, -2) @ left
    return jax.lax.optimization_barrier(product).swapaxes(-1, -2)  # else XLA swaps the two back


inner.defjvp(_product(inner, lambda ct, k: ct @ finite(k), _summed), symbolic_zeros=True)
mix.defjvp(_product(mix, inner, lambda ct, weights: _summed(weights, ct)), symbolic_zeros=True)


@jax.custom_jvp
def softmax(logits: Float[Array, '*b T S'], allowed: Bool[Array, '*#b #T S']) -> Float[Array, '*b T S']:
    """The softmax over the keys allowed; its backward pass needs the weights alone, which `mix` keeps too."""
    # The mask comes after the bias and never by addition: sums of large negatives overflow to NaN rows.
    return jax.nn.softmax(jnp.where(allowed, logits, -1e30), axis=-1)


def _softmax_pull(d, weights):
    """Of logits to weights and of weights to logits: the map is symmetric."""
    return weights * (d - (weights * d).sum(-1, keepdims=True))


def _softmax_jvp(primals, tangents):
    weights, d = softmax(*primals), tangents[0]
    if isinstance(d, SymbolicZero):
        return weights, jnp.zeros_like(weights)
    return weights, linear_map(_softmax_pull, _softmax_pull, d, weights)


softmax.defjvp(_softmax_jvp, symbolic_zeros=True)


def linear(
    x: Float[Array, '...'], kernel: Float[Array, '...'], dimension_numbers: Any = (((-1,), (0,)), ((), ())), **_: Any
) -> Float[Array, '...']:
    """The last axes of x times the first ones of kernel: as many as the first of `dimension_numbers` has, so that the
    linear layers of `nnx` take it as their `dot_general`."""
    count = len(dimension_numbers[0][0])
    rows, inputs, outputs = x.shape[:-count], x.shape[-count:], kernel.shape[count:]
    y = mix(x.reshape(-1, math.prod(inputs)), kernel.reshape(-1, math.prod(outputs)))
    return y.reshape(*rows, *outputs)
