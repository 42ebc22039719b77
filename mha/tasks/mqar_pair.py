"""Multi-query recall with keys of two symbols (zoology's compositional MQAR; Arora et al., 2023, arXiv:2312.04927):
neither symbol of a key alone tells the value.

    2 7 12  4 7 11  4 8 14  2 8 13  n5 n0 n1  4 8 n3  2 7 n1  ..       14 after the second 4 8, 12 after the second 2 7

There are g symbols A, g symbols B, and K = g^2 keys: all pairs A B, in random order. A is from 1 .. V/3 - 1, B from
V/3 .. 2V/3 - 1, values from 2V/3 .. V - 1, all distinct. An example of length S begins with the K keys, each with its
value. The rest is divided into slots of three, in which the keys occur again, as in `mqar`. All other tokens are
filler, which consists of `noise` symbols of its own.
    causal:         the answer at the second symbol of a repeated key is its value.
    bidirectional:  later tokens are visible, so one of the keys follows the S tokens, and its value is the answer.
The shortest length is 6 K.

Released: filler is any symbol (`noise=0`), so that it may contradict the context.
"""

import jax
import jax.numpy as jnp

from mha.arguments import Count, Several
from mha.tasks._recall import Associations, Noise, Power, Recall


class MqarPair(Recall):
    """Keys of two symbols with values, and the keys again in, the values out. g = `grid`, V = `vocabulary`; `power` and
    `random_filler` are those of `mqar`."""

    width = 2

    def __init__(
        self,
        vocabulary: Count = 96,
        grid: Several = 2,
        power: Power = 0.01,
        random_filler: bool = True,
        noise: Noise = 16,
        *,
        causal: bool = False,
    ):
        if vocabulary < 3 * grid**2:
            raise ValueError(f'vocabulary must be at least 3 * grid^2 = {3 * grid**2}, not {vocabulary}')
        super().__init__(vocabulary, power, random_filler, noise, causal=causal)
        self.grid, self.shortest_length = grid, 6 * grid**2

    @property
    def chance(self):
        """Accuracy of a uniform guess among the values."""
        return 1 / (self.num_classes - 2 * (self.num_classes // 3))

    def associations(self, key, value_key, length):
        first_key, second_key, order_key = jax.random.split(key, 3)
        third, pairs = self.num_classes // 3, self.grid**2
        first = 1 + jax.random.permutation(first_key, third - 1)[: self.grid]
        second = third + jax.random.permutation(second_key, third)[: self.grid]
        values = 2 * third + jax.random.permutation(value_key, self.num_classes - 2 * third)[:pairs]
        cell = jax.random.permutation(order_key, pairs)
        keys = jnp.stack([first[cell // self.grid], second[cell % self.grid]], axis=1)
        return Associations(keys, values, pairs, pairs, jnp.arange(pairs), values)
