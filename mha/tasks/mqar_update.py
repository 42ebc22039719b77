"""Multi-query recall with updates (zoology's forgetting MQAR; Arora et al., 2023, arXiv:2312.04927): some keys get
another value later, and the last one counts.

    2 8 4 7 3 9 4 6 n5 n0 2 n3 4 n1 3 n7       8 after the second 2, 6 after the third 4, 9 after the second 3

An example of length S begins with K pairs of a key and a value as in `mqar`, then U of the keys in random order, each
with a value other than its first. All K keys follow among filler, which consists of `noise` symbols of its own.
    causal:         the answer at a repeated key is its last value.
    bidirectional:  later tokens are visible, so one of the keys follows the S tokens, and its last value is the answer.
The shortest length is 4 K + 2 U.

Released: filler is any symbol (`noise=0`), so that it may contradict the pairs. There, a new value differs from the
value of another key, so about one update in V / 2 changes nothing.
"""

import jax
import jax.numpy as jnp

from mha.arguments import Count
from mha.tasks._recall import Associations, Noise, Power, Recall


class MqarUpdate(Recall):
    """Pairs, new pairs and keys in, the last values of the keys out. K = `pairs`, U = `updates`, V = `vocabulary`;
    `power` and `random_filler` are those of `mqar`."""

    def __init__(
        self,
        vocabulary: Count = 64,
        pairs: Count = 8,
        updates: Count = 4,
        power: Power = 0.01,
        random_filler: bool = True,
        noise: Noise = 16,
        *,
        causal: bool = False,
    ):
        if vocabulary < 2 * pairs + 2:
            raise ValueError(f'vocabulary must be at least 2 * pairs + 2 = {2 * pairs + 2}, not {vocabulary}')
        if updates > pairs:
            raise ValueError(f'updates must be at most pairs = {pairs}, not {updates}')
        super().__init__(vocabulary, power, random_filler, noise, causal=causal)
        self.pairs, self.updates, self.shortest_length = pairs, updates, 4 * pairs + 2 * updates

    @property
    def chance(self):
        """Accuracy of a uniform guess among the values."""
        return 1 / (self.num_classes - self.num_classes // 2)

    def associations(self, key, value_key, length):
        value_key, update_key, change_key = jax.random.split(value_key, 3)
        half = self.num_classes // 2
        keys = 1 + jax.random.permutation(key, half - 1)[: self.pairs]
        first = jax.random.permutation(value_key, self.num_classes - half)[: self.pairs]
        updated = jax.random.permutation(update_key, self.pairs)[: self.updates]
        change = jax.random.randint(change_key, (self.updates,), 1, self.num_classes - half)
        last = first.at[updated].add(change) % (self.num_classes - half)
        entries = jnp.concatenate([jnp.arange(self.pairs), updated])
        values = half + jnp.concatenate([first, last[updated]])
        return Associations(keys[:, None], half + last, self.pairs, entries.size, entries, values)
