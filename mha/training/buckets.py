"""Padded lengths, also called buckets: batches are padded to one of a few lengths, so that a run compiles a few
programs instead of one per length."""

from collections.abc import Callable, Sequence

import numpy as np


def choose(lengths: Sequence[int], tokens: Callable[[int], int], count: int) -> tuple[int, ...]:
    """Padded lengths: at most `count` of `lengths`, including the largest. They are chosen such that padding every
    length to the next of them adds the fewest tokens, with all lengths equally likely."""
    lengths = sorted(set(lengths))
    cost = np.array([tokens(length) for length in lengths], float)
    n = len(lengths)
    # best[j]: fewest tokens of the first j lengths with the buckets so far; cuts[b][j - 1]: start of the last one.
    best = np.concatenate([[0.0], np.full(n, np.inf)])
    cuts = []
    for _ in range(min(count, n)):
        ends = np.arange(1, n + 1)
        total = best[None, :n] + (ends[:, None] - np.arange(n)) * cost[:, None]
        total = np.where(np.arange(n) < ends[:, None], total, np.inf)
        cuts.append(total.argmin(1))
        best = np.concatenate([[0.0], total.min(1)])
    chosen, end = [], n
    for cut in reversed(cuts):
        if end == 0:
            break
        chosen.append(lengths[end - 1])
        end = int(cut[end - 1])
    return tuple(sorted(chosen))
