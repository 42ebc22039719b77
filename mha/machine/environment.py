"""Mistakes in environment variables that jax, XLA, flax and matplotlib read. They read most of them when they are
imported; XLA ends the process at a flag that it does not know."""

import os
import sys

from mha.spec import UserError


def mistake(error: BaseException) -> str:
    """The variable that made an import fail, with the reason; '' if none did. The error of such an import quotes the
    value."""
    reason = ' '.join(str(error).split())
    quoted = [
        f'{name}={value}: {reason}'
        for name, value in os.environ.items()
        if value and isinstance(error, ValueError) and (f"'{value}'" in reason or f'"{value}"' in reason)
    ]
    named = [text for text in quoted if text.partition('=')[0].lower() in reason.lower()]
    return next(iter(named or quoted), '')


def check() -> None:
    """Raises `UserError` for variables that the packages imported so far cannot follow. Must be called before the first
    computation."""
    if (jax := sys.modules.get('jax')) is None:
        return
    if jax.config.jax_num_cpu_devices == 0:
        raise UserError('JAX_NUM_CPU_DEVICES=0: give a number of at least 1, or leave it out')
    if jax.config.jax_disable_jit:
        raise UserError('JAX_DISABLE_JIT is set, but programs are compiled before they run - unset it')
    if os.environ.get('XLA_FLAGS'):
        _check_xla_flags()


def _check_xla_flags() -> None:
    from jaxlib import xla_client

    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.dup2(write, 2)
            xla_client.CompileOptions()  # reads XLA_FLAGS, and ends the process at a mistake
        finally:
            os._exit(0)
    os.close(write)
    with open(read, errors='replace') as pipe:
        reason = ' '.join(pipe.read().partition('] ')[2].split())
    if os.waitpid(child, 0)[1]:
        raise UserError(f'XLA_FLAGS={os.environ["XLA_FLAGS"]}: {reason}')
