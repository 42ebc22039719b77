"""Matrix products in the order that compilers execute fastest: [.., M, K] @ [.., K, N]. The larger of two arrays is
never transposed, in the forward or the backward pass.

The products have custom derivatives that can themselves be differentiated in every mode, to any order. Each product has
a tangent, and the tangent is a linear map with its own transpose (`linear_map`). A `jax.custom_vjp` would rule out
forward mode and everything built on it, such as Hessian-vector products.
"""

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
    """Type of logits, sums and the softmax: float32, or float64 if one of the arrays has it."""
    return jnp.result_type(jnp.float32, *arrays)


def finite(x: Float[Array, '*shape']) -> Float[Array, '*shape']:
    """`x` with 0 in place of NaN and infinity."""
    return jnp.where(jnp.isfinite(x), x, 0)


@jax.custom_jvp
def hideable(
    k: Float[Array, 'B S H W'], v: Float[Array, 'B S H V']
) -> tuple[Float[Array, 'B S H W'], Float[Array, 'B S H V']]:
    """Keys and values that a mask can hide completely. A weight of 0 does not hide a NaN in a value, so NaN moves from
    the value to the key, whose logit the mask replaces."""
    # Under this option, a NaN ends the program where it is made: there is none to hide, and the one below would, too.
    if jax.config.jax_debug_nans:  # pyright: ignore[reportAttributeAccessIssue]
        return k, v
    return jnp.where(jnp.isfinite(v).all(-1, keepdims=True), k, jnp.nan), finite(v)


hideable.defjvp(lambda primals, tangents: (hideable(*primals), tangents))  # visible entries do not change


# --- linear maps with custom transposes -------------------------------------------------------------------------------


def linear_map(function: Callable[..., Array], transpose: Callable[..., Array], x: Array, fixed: Array) -> Array:
    """`function(x, fixed)`, which must be linear in x. Reverse mode computes the cotangent of x as `transpose(ct,
    fixed)`."""
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
    (x, fixed), (x_axis, fixed_axis) = arrays, axes
    size = x.shape[x_axis] if x_axis is not None else fixed.shape[fixed_axis]
    x = jnp.moveaxis(x, x_axis, 0) if x_axis is not None else jnp.broadcast_to(x, (size, *x.shape))
    function, transpose = (jax.vmap(each, (0, fixed_axis)) for each in (function, transpose))
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
    """Rule for the tangent of `product(left, right)`. `pull_left` and `pull_right` are the transposes of its two
    terms."""

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
    """Inner products of the rows of q with the rows of k, in float32 or better. A row of k that is not finite makes its
    column NaN but gets no gradient, so that hiding the column hides it completely."""
    return jnp.matmul(q, k.swapaxes(-1, -2), preferred_element_type=accurate(q, k))


@jax.custom_jvp
def mix(weights: Float[Array, '*b T S'], v: Float[Array, '*b S V']) -> Float[Array, '*b T V']:
    """Weighted sums of the rows of v."""
    return weights.astype(v.dtype) @ v


def _summed(left, right):
    """Product left^T right; only the narrower of the two is transposed."""
    if left.shape[-1] <= right.shape[-1]:
        return left.swapaxes(-1, -2) @ right
    product = right.swapaxes(-1, -2) @ left
    return jax.lax.optimization_barrier(product).swapaxes(-1, -2)  # otherwise XLA reverses the order again


inner.defjvp(_product(inner, lambda ct, k: ct @ finite(k), _summed), symbolic_zeros=True)
mix.defjvp(_product(mix, inner, lambda ct, weights: _summed(weights, ct)), symbolic_zeros=True)


@jax.custom_jvp
def softmax(logits: Float[Array, '*b T S'], allowed: Bool[Array, '*#b #T S']) -> Float[Array, '*b T S']:
    """Softmax over the allowed keys. Its backward pass needs only the weights, which `mix` keeps anyway."""
    # The mask is applied after the bias, and not by addition: sums of large negative numbers overflow to NaN.
    return jax.nn.softmax(jnp.where(allowed, logits, -1e30), axis=-1)


def _softmax_pull(d, weights):
    """Linear map between changes of logits and of weights; it is its own transpose."""
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
    """Product of the last axes of x with the first axes of the kernel. `dimension_numbers` gives the number of axes, so
    that linear layers of `nnx` can use this function as `dot_general`."""
    count = len(dimension_numbers[0][0])
    rows, inputs, outputs = x.shape[:-count], x.shape[-count:], kernel.shape[count:]
    y = mix(x.reshape(-1, math.prod(inputs)), kernel.reshape(-1, math.prod(outputs)))
    return y.reshape(*rows, *outputs)
