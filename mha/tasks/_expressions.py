"""Arithmetic expressions with brackets, modulo 5, of exactly `length` characters (Delétang et al., 2023,
arXiv:2207.02098).

    length 1: d      2: -d      3: (d)      4: (-d)      5 and more: (A op B), the length of A uniform

All parts of an expression are split at the same time, without recursion: every character belongs to the innermost part
around it, and each round splits all parts of five characters or more. The value is computed in as many rounds, from the
innermost parts outwards.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

MODULUS = 5
CHARACTERS = '01234+-*()'
PLUS, MINUS, TIMES, OPEN, CLOSE = range(MODULUS, len(CHARACTERS))
DIGIT = -1
"""Placeholder for a digit to be drawn."""
LEAVES = ((0,) * 4, (DIGIT, 0, 0, 0), (MINUS, DIGIT, 0, 0), (OPEN, DIGIT, CLOSE, 0), (OPEN, MINUS, DIGIT, CLOSE))
"""Forms of the parts of 0 .. 4 characters."""


def sample(
    key: PRNGKeyArray, length: Int[Array, ''] | int, max_length: int, times: bool = True
) -> tuple[Int[Array, 'N'], Int[Array, '']]:
    """Random expression of `length` >= 1 characters, and its value, a number below 5. Characters are indices into
    `CHARACTERS`, [max_length], followed by zeros. `times=False` leaves out the operator `*`."""
    split_key, operator_key, digit_key = jax.random.split(key, 3)
    # One draw per character: a part is split at the draw of its opening bracket.
    uniform = jax.random.uniform(split_key, (max_length,))
    operator = jax.random.randint(operator_key, (max_length,), PLUS, TIMES + times)
    digit = jax.random.randint(digit_key, (max_length,), 0, MODULUS)
    slot = jnp.arange(max_length)

    def split(state):
        start, size, text, second, height = state
        parent = size > 4
        left = 1 + (uniform[start] * (size - 4)).astype(jnp.int32)
        middle = start + 1 + left
        bracket = jnp.where(slot == start, OPEN, CLOSE)
        is_bracket = (slot == start) | (slot == start + size - 1)
        symbol = jnp.where(is_bracket, bracket, operator)
        done = is_bracket | (slot == middle)
        text = jnp.where(parent & done, symbol, text)
        second = jnp.where(parent & (slot == start), middle + 1, second)
        inner = jnp.where(slot < middle, left, size - 3 - left)
        start = jnp.where(parent & ~done, jnp.where(slot < middle, start + 1, middle + 1), start)
        size = jnp.where(parent, jnp.where(done, 0, inner), size)
        return start, size, text, second, height + 1

    zeros = jnp.zeros(max_length, jnp.int32)
    state = zeros, jnp.where(slot < length, length, 0), zeros, zeros, 0
    start, size, text, second, height = jax.lax.while_loop(lambda state: (state[1] > 4).any(), split, state)

    leaf = jnp.array(LEAVES)[size, jnp.clip(slot - start, 0, 3)]
    text = jnp.where(size > 0, jnp.where(leaf == DIGIT, digit, leaf), text)

    # The value of the part that starts at each character; parts of height h have theirs after h rounds.
    after = jnp.roll(text, -1), jnp.roll(text, -2)
    leaves = jnp.stack([zeros, text, -after[0], after[0], -after[1]])
    value = leaves[size, slot]
    operator = text[second - 1]

    def evaluate(_, value):
        a, b = jnp.roll(value, -1), value[second]
        both = jnp.select([operator == PLUS, operator == MINUS], [a + b, a - b], a * b) % MODULUS
        return jnp.where(second > 0, both, value)

    return text, jax.lax.fori_loop(0, height, evaluate, value)[0] % MODULUS
