"""Addition of zero-padded numbers (Cho et al., 2025, arXiv:2410.15787; Zhou et al., 2024, arXiv:2402.09371): equal
places have equal distances, and the sum begins with its lowest place.

    086+007=             390.
    0086+0007+0912=      5001.              operands=3
    086+007=             000>680>390.       scratchpad=True
    c0d8e6+c0d0e7=       e3d9c0.            hints=26

All numbers are padded to the width of the largest possible sum. With `scratchpad`, the answer has the sums of the first
0, 1, 2, .. operands. With `hints`, every digit follows a symbol for its place: consecutive ones of the `hints` symbols,
beginning at random. Length is the number of digits of the longest operand. All tuples of digit counts with that maximum
are equally likely; numbers do not begin with 0 before padding.

With `coupled`, the model has the ids of position coupling as coordinates, for `model.position='coupling'`: p + 2 for a
digit of place p, 1 for + = >. Published with a second id for the operand, trained on lengths up to 10 with 2 to 5
operands, half of the examples with operands of `equal` length:
`padded_addition(operands=5, fewest=2, scratchpad=True, coupled=True, equal=0.5)`; tested on 15 digits and 7 operands.
Cho et al. (2024, arXiv:2405.20671) add two numbers, trained on lengths up to 30 and tested on 100, without the first 0
of the operands. Zhou et al. train with hints on lengths up to 40 and test on 100; the code of Cho et al. has the first
hints in all tests.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from mha.arguments import Share, at_least, at_most, between
from mha.spec import UserError
from mha.tasks._decimal import carried, coupled, number
from mha.tasks.base import EMPTY, Sequence

LETTERS = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'


class PaddedAddition(Sequence):
    """Numbers in, their sum out. The number of operands is uniform in `fewest` .. `operands`, by default always
    `operands`. In a share `equal` of the examples all operands have the same number of digits."""

    level = 'context-sensitive'

    def __init__(
        self,
        operands: Annotated[int, between(2, 100)] = 2,
        scratchpad: bool = False,
        hints: Annotated[int, at_least(0), at_most(10_000)] = 0,
        coupled: bool = False,
        fewest: Annotated[int, between(2, 100)] | None = None,
        equal: Share = 0.0,
        bos: bool = False,
        *,
        causal: bool = False,
    ):
        fewest = operands if fewest is None else fewest
        if fewest > operands:
            raise ValueError(f'fewest must be at most operands={operands}, not {fewest}')
        if coupled and hints:
            raise ValueError(f'hints must be 0 for coupled=True, not {hints}')
        self.operands, self.scratchpad, self.hints, self.coupled = operands, scratchpad, hints, coupled
        self.fewest, self.equal = fewest, equal
        names = LETTERS[:hints] if hints <= len(LETTERS) else [f'h{i}' for i in range(hints)]
        self.alphabet = (*'0123456789+=.', *('>' * scratchpad), *names)
        super().__init__(bos=bos, causal=causal)

    def width(self, length):
        """Number of digits of every number."""
        return length + len(str(self.operands - 1))

    def prompt_length(self, length):
        return self.operands * (self.width(length) * (1 + (self.hints > 0)) + 1)

    def output_length(self, length):
        numbers = self.operands + 1 if self.scratchpad else 1
        return numbers * (self.width(length) * (1 + (self.hints > 0)) + 1)

    def sizes(self, key, length, count):
        """Numbers of digits [operands], of which the first `count` matter."""
        first_key, size_key, equal_key = jax.random.split(key, 3)
        operand = jnp.arange(self.operands)
        # The first of the longest operands; those before it are shorter, those after it are not longer.
        weight = jnp.where(operand < count, (1 - 1 / length) ** operand, 0)
        first = jnp.argmax(jnp.log(weight) + jax.random.gumbel(first_key, weight.shape))
        size = jax.random.randint(size_key, (self.operands,), 1, jnp.maximum(length + (operand > first), 2))
        equal = jax.random.uniform(equal_key) < self.equal
        return jnp.where((operand == first) | equal, length, size)

    def sample(self, key, length, max_length):
        if self.hints and self.width(max_length) > self.hints:
            needed = self.width(max_length)
            raise UserError(
                f'padded_addition has {self.hints} hints - set hints={needed} for numbers of {needed} digits'
            )
        count_key, size_key, number_key, hint_key = jax.random.split(key, 4)
        count = jax.random.randint(count_key, (), self.fewest, self.operands + 1)
        real = jnp.arange(self.operands) < count
        size, places = self.sizes(size_key, length, count), self.width(max_length)
        digits, _ = jax.vmap(lambda key, size: number(key, size, places))(jax.random.split(number_key, len(real)), size)
        digits = jnp.where(real[:, None], digits, 0)
        sums = jnp.pad(carried(jnp.cumsum(digits, axis=0)), ((1, 0), (0, 0)))
        hint = jax.random.randint(hint_key, (), 0, max(self.hints, 1) - self.width(length) + 1)
        place = jnp.arange(places)
        operands = self.written(digits[:, ::-1], place[::-1], length, hint)
        sums = self.written(sums, place, length, hint)
        answer = self.listed(sums, jnp.append(True, real), '>') if self.scratchpad else sums[-1]
        return self.concat(self.listed(operands, real, '+'), '='), self.concat(answer, '.')

    def written(self, numbers, place, length, hint):
        """Symbols [N, ..] of numbers [N, W] with digits of the places [W]; `hint` is the first hint's index."""
        symbols = numbers[..., None]
        if self.hints:
            first = len(self.alphabet) - self.bos - self.hints
            hints = first + hint + self.width(length) - 1 - place
            symbols = jnp.stack([jnp.broadcast_to(hints, numbers.shape), numbers], axis=-1)
        inside = place < self.width(length)
        return jnp.where(inside[None, :, None], symbols, EMPTY).reshape(len(numbers), -1)

    def example(self, key, length, max_length):
        example = super().example(key, length, max_length)
        if not self.coupled:
            return example
        marks = tuple(self.symbol(mark) for mark in '+=>' if mark in self.alphabet)
        return coupled(example, marks, self.symbol('='), self.bos)
