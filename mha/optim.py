"""Optimisers and learning-rate schedules, from optax."""

from typing import Literal

import optax


def make(
    steps: int,
    learning_rate: float = 1e-3,
    schedule: Literal['constant', 'cosine'] = 'constant',
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    clip_norm: float = 1.0,
) -> optax.GradientTransformation:
    """Adam with gradients clipped to a global norm, as in Ruoss et al. (2023); AdamW where `weight_decay` is above 0.
    The learning rate rises linearly for `warmup_steps` and then stays, or falls to 0 along a cosine."""
    if warmup_steps >= steps:
        raise ValueError(f'warmup_steps={warmup_steps} must be below steps={steps}')
    for name, value in {'learning_rate': learning_rate, 'clip_norm': clip_norm}.items():
        if not value > 0:
            raise ValueError(f'{name} must be above 0, not {value}')
    if not weight_decay >= 0:
        raise ValueError(f'weight_decay must be at least 0, not {weight_decay}')
    after = (
        optax.cosine_decay_schedule(learning_rate, steps - warmup_steps)
        if schedule == 'cosine'
        else optax.constant_schedule(learning_rate)
    )
    warm = optax.linear_schedule(0.0, learning_rate, max(warmup_steps, 1))
    rate = optax.join_schedules([warm, after], [warmup_steps]) if warmup_steps else after
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adamw(rate, weight_decay=weight_decay))
