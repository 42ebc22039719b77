"""Optimisers and learning-rate schedules by spec, from optax: `'adamw(b2=0.98)'` and `'warmup(steps=1000)|rsqrt'`.

Step t = 0, 1, .. of a run moves the parameters by -rate(t) (u + weight_decay p): u is the optimiser's direction, from
gradients clipped to a global norm, and the decay is decoupled (Loshchilov & Hutter, 2019, arXiv:1711.05101) for all.

    adam, adamw   m / (sqrt(v) + eps)           Kingma & Ba (2015, arXiv:1412.6980); one optimiser under both its names
    lion          sign(b1 m + (1 - b1) g)       Chen et al. (2023, arXiv:2302.06675)
    muon          UV' of the momentum USV'      Jordan et al. (2024), scaled as Liu et al. (2025, arXiv:2502.16982)
    sgd           momentum m + g

A schedule is a factor on `learning_rate`. `warmup(steps=..)|` in front of it makes the rate first rise from 0, as t /
steps. Below, T is the number of steps after the warm-up, and t counts steps from its end; for `rsqrt`, from the start
of the run:

    constant      1
    linear        1 - (1 - final) t / T
    cosine        final + (1 - final) (1 + cos(pi t / T)) / 2     Loshchilov & Hutter (2017, arXiv:1608.03983)
    rsqrt         sqrt(k / max(t, k))     Vaswani et al. (2017, arXiv:1706.03762) with k = steps of the warm-up;
                                          Raffel et al. (2020, arXiv:1910.10683) with k = 10,000 and no warm-up
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mha import arguments, spec
from mha.arguments import Decay, Part, Positive, Repeats, Share, Size, Steps

Number = float | Float[Array, '']
"""Number, or a traced scalar if members of a population differ in it."""
Rate = optax.Schedule


@arguments.checked
def make(
    steps: Steps,
    name: str = 'adam',
    learning_rate: Positive | Float[Array, ''] = 1e-3,
    schedule: str = 'constant',
    weight_decay: Size | Float[Array, ''] = 0.0,
    clip_norm: Size = 1.0,
) -> optax.GradientTransformation:
    """Optimiser of a run of `steps`: by default Adam with gradients clipped to global norm 1, as in Ruoss et al. (2023,
    arXiv:2305.16843). `clip_norm=0` clips nothing. `learning_rate` and `weight_decay` may be traced; the structure of
    the state depends on neither. Raises `ValueError` for wrong arguments."""
    with spec.setting('optimizer.schedule'):
        rate = make_rate(schedule, steps, learning_rate)
    with spec.setting('optimizer.name'):
        call, *more = spec.parse(name)
        if more:
            raise spec.UserError(f'optimizer {name!r}: optimizers do not compose')
        function = OPTIMIZERS[spec.choose(call.name, OPTIMIZERS, 'optimizer')]
        optimizer = arguments.build(function, call, 'optimizer', rate, weight_decay)
    return optax.chain(optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(), optimizer)


def make_rate(text: str, steps: int, learning_rate: Number) -> Rate:
    """Learning rate at each step of a run of `steps`, from the spec of a schedule."""
    *before, call = calls = spec.parse(text)
    for each in calls:
        spec.choose(each.name, ('warmup', *SCHEDULES), 'schedule')
    if call.name == 'warmup' or [each.name for each in before] not in ([], ['warmup']):
        raise spec.UserError(
            f'schedule {text!r} must be one of {", ".join(SCHEDULES)}, with at most a warm-up before it: '
            "'warmup(steps=1000)|cosine'"
        )
    if not before:
        return arguments.build(SCHEDULES[call.name], call, 'schedule', learning_rate, steps, 0)
    warm, rise = arguments.build(warmup, before[0], 'schedule', learning_rate, steps)
    after = arguments.build(SCHEDULES[call.name], call, 'schedule', learning_rate, steps - warm, warm)
    return optax.join_schedules([rise, after], [warm])


# --- schedules: of the learning rate and their number of steps; those after a warm-up also take its steps -------------


def warmup(learning_rate: Number, total: int, steps: Steps) -> tuple[int, Rate]:
    """Rise of the learning rate from 0 over `steps` steps."""
    if steps >= total:
        raise ValueError(f'steps must be at least 1 and below train.steps={total}, not {steps}')
    return steps, optax.linear_schedule(0.0, learning_rate, steps)  # pyright: ignore[reportArgumentType]


def constant(learning_rate: Number, total: int, warm: int) -> Rate:
    return optax.constant_schedule(learning_rate)  # pyright: ignore[reportArgumentType]


def linear(learning_rate: Number, total: int, warm: int, final: Share = 0.0) -> Rate:
    """Linear decay to `final` times the learning rate."""
    return optax.linear_schedule(learning_rate, final * learning_rate, total)  # pyright: ignore[reportArgumentType]


def cosine(learning_rate: Number, total: int, warm: int, final: Share = 0.0) -> Rate:
    """Cosine decay to `final` times the learning rate."""
    return optax.cosine_decay_schedule(learning_rate, total, alpha=final)  # pyright: ignore[reportArgumentType]


def rsqrt(learning_rate: Number, total: int, warm: int, timescale: Steps | None = None) -> Rate:
    """Decay as 1 / sqrt(t) from step `timescale` on: by default the end of the warm-up, or step 1 without a warm-up."""
    least = max(warm, 1)
    k = least if timescale is None else timescale
    if k < least:
        raise ValueError(f'timescale must be at least {least}{", the steps of the warm-up" if warm else ""}, not {k}')
    return lambda count: learning_rate * jnp.sqrt(k / jnp.maximum(count + warm, k))


# --- optimisers: of the rate and the weight decay, then arguments that a spec may set ---------------------------------


def adam(
    rate: Rate, weight_decay: Number, b1: Decay = 0.9, b2: Decay = 0.999, eps: Part = 1e-8
) -> optax.GradientTransformation:
    return optax.adamw(rate, b1, b2, eps, weight_decay=weight_decay)  # pyright: ignore[reportArgumentType]


def lion(rate: Rate, weight_decay: Number, b1: Decay = 0.9, b2: Decay = 0.99) -> optax.GradientTransformation:
    """Lion. Its steps are large: use a learning rate 3 to 10 times smaller than Adam's, and a decay as many times
    larger."""
    return optax.lion(rate, b1, b2, weight_decay=weight_decay)  # pyright: ignore[reportArgumentType]


def sgd(
    rate: Rate, weight_decay: Number, momentum: Decay = 0.0, nesterov: bool = False
) -> optax.GradientTransformation:
    return optax.chain(
        optax.trace(momentum, nesterov),
        optax.add_decayed_weights(weight_decay),  # pyright: ignore[reportArgumentType]
        optax.scale_by_learning_rate(rate),
    )


def muon(
    rate: Rate, weight_decay: Number, beta: Decay = 0.95, ns_steps: Repeats = 5, b1: Decay = 0.9, b2: Decay = 0.999
) -> optax.GradientTransformation:
    """Muon: momentum of matrices (decay `beta`), orthogonalised by `ns_steps` Newton-Schulz iterations.

    Matrices are the kernels of linear layers in the blocks, with all heads of a projection in one matrix: [D, H, K] is
    D x HK, [H, K, D] of `out` is HK x D. All other parameters (embeddings, read-out, biases, norms, position schemes)
    are trained by Adam (`b1`, `b2`, with Nesterov momentum, as in optax). The update of an m x n matrix is
    0.2 sqrt(max(m, n)) times the orthogonal matrix, as large as under Adam (Liu et al., 2025), so that one learning
    rate and one decay suit both."""
    return optax.contrib.muon(
        rate,
        ns_steps=ns_steps,
        beta=beta,
        weight_decay=weight_decay,  # pyright: ignore[reportArgumentType]
        adam_b1=b1,
        adam_b2=b2,
        adam_weight_decay=weight_decay,  # pyright: ignore[reportArgumentType]
        muon_weight_dimension_numbers=lambda params: jax.tree.map_with_path(_matrix, params),
        consistent_rms=0.2,
    )


def _matrix(path: tuple, leaf: Array) -> optax.contrib.MuonDimensionNumbers | None:
    """Axes of a parameter that are rows and columns of its matrix in Muon; None for parameters that Adam trains."""
    names = jax.tree_util.keystr(path, simple=True, separator='.').split('.')
    if names[-1] != 'kernel' or {'head', 'positions'} & set(names) or leaf.ndim not in (2, 3):
        return None
    rows = leaf.ndim - 1 if 'out' in names else 1
    return optax.contrib.MuonDimensionNumbers(tuple(range(rows)), tuple(range(rows, leaf.ndim)))


ENDLESS = ('constant', 'rsqrt')
"""Schedules whose rate at a step does not depend on the number of steps."""
OPTIMIZERS = {'adam': adam, 'adamw': adam, 'lion': lion, 'muon': muon, 'sgd': sgd}
SCHEDULES = {each.__name__: each for each in (constant, cosine, linear, rsqrt)}
