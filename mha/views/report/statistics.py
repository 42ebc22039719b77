"""Statistics of rows: intervals over seeds, paired tests, and ranks over tasks.

Rows are compared by pairs: equal seeds mean equal training data and, for models of one shape, equal initial weights, so
that differences vary less than scores. p-values of all pairs are corrected together (Holm, 1979).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from mha.training.metrics import number

Kind = Literal['t', 'bootstrap']
"""Kind of an interval over seeds: the t-interval, or that of the bootstrap."""
LEVEL = 0.95
RESAMPLES = 9999


def half_width(values: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Half width of the t-interval of a mean over the first axis, the seeds: t(n - 1) s / sqrt(n). NaN for one seed."""
    count = len(values)
    if count < 2:
        return np.full(values.shape[1:], math.nan)
    return np.asarray(stdtrit(count - 1, (1 + level) / 2) * values.std(0, ddof=1) / math.sqrt(count))


def bootstrap(values: np.ndarray, level: float = LEVEL, seed: int = 0) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of a mean (Efron, 1987); NaN for a single value. Below about
    ten values it is too narrow, and the t-interval is better."""
    return _bootstrap(tuple(values.tolist()), level, seed)


@functools.lru_cache(maxsize=100_000)
def _bootstrap(scores: tuple[float, ...], level: float, seed: int) -> tuple[float, float]:
    from scipy import stats

    if len(scores) < 2 or not all(map(math.isfinite, scores)):
        return math.nan, math.nan
    if min(scores) == max(scores):
        return scores[0], scores[0]
    rng = np.random.default_rng(seed)
    found = stats.bootstrap((scores,), np.mean, confidence_level=level, n_resamples=RESAMPLES, rng=rng)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def interval(values: np.ndarray, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of the 95 % interval of a mean over the first axis, the seeds. NaN for one seed."""
    if kind == 't':
        half = half_width(values)
        return np.asarray(values.mean(0) - half), np.asarray(values.mean(0) + half)
    ends = np.array([bootstrap(scores) for scores in values.reshape(len(values), -1).T])
    low, high = (end.reshape(values.shape[1:]) for end in ends.T)
    return low, high


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """Statistics over seeds of one score each. Deviation and interval of a single seed are NaN; for a range without
    lengths, all are."""

    scores: np.ndarray
    direction: Literal['max', 'min']
    """Which of the scores is the best."""
    kind: Kind

    @property
    def mean(self) -> float:
        return float(self.scores.mean())

    @property
    def deviation(self) -> float:
        return float(self.scores.std(ddof=1)) if len(self.scores) > 1 else math.nan

    @property
    def best(self) -> float:
        return float(self.scores.max() if self.direction == 'max' else self.scores.min())

    @property
    def half_width(self) -> float:
        """Half width of the t-interval."""
        return float(half_width(self.scores))

    @property
    def interval(self) -> tuple[float, float]:
        """Interval of the kind that the report shows."""
        low, high = interval(self.scores, self.kind)
        return float(low), float(high)

    @property
    def spread(self) -> str:
        """Interval as text: `'± 0.010'`, or `'[0.957, 0.976]'` of the bootstrap; empty for a single seed, and without
        lengths."""
        low, high = self.interval
        if len(self.scores) < 2 or math.isnan(low):
            return ''
        return f'± {number(self.half_width)}' if self.kind == 't' else f'[{number(low)}, {number(high)}]'


@dataclasses.dataclass(frozen=True)
class Pair:
    """Difference of two rows, `first - second`, over the seeds that both have."""

    first: str
    second: str
    seeds: int
    difference: float
    half_width: float
    """Half width of the 95 % t-interval of the mean difference; not corrected for the number of pairs."""
    p: float
    """p-value of the paired t-test; NaN with fewer than two common seeds."""

    @property
    def differs(self) -> bool:
        return self.p < 1 - LEVEL


def pairs(scores: Mapping[str, Mapping[int, float]]) -> list[Pair]:
    """Paired comparisons of all rows, each a score per seed, with the p-values of single tests."""
    found = []
    for first, second in itertools.combinations(scores, 2):
        common = sorted(scores[first].keys() & scores[second].keys())
        differences = np.array([scores[first][seed] - scores[second][seed] for seed in common])
        mean = float(differences.mean()) if common else math.nan
        found.append(Pair(first, second, len(common), mean, float(half_width(differences)), paired_p(differences)))
    return found


def corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs with p-values corrected for their number (`holm`)."""
    ps = holm([pair.p for pair in pairs])
    return [dataclasses.replace(pair, p=p) for pair, p in zip(pairs, ps, strict=True)]


def paired_p(differences: np.ndarray) -> float:
    """Two-sided p-value of the paired t-test; NaN for fewer than two differences, 1 if all are 0."""
    count = len(differences)
    if count < 2:
        return math.nan
    deviation = differences.std(ddof=1)
    if deviation == 0:
        return 1.0 if differences[0] == 0 else 0.0
    return float(2 * stdtr(count - 1, -abs(differences.mean()) / deviation * math.sqrt(count)))


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected by Holm's step-down method: the chance of one false difference among all stays below the
    level. NaNs are left out of the count."""
    order = sorted((index for index, p in enumerate(ps) if not math.isnan(p)), key=lambda index: ps[index])
    corrected, largest = [math.nan] * len(ps), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, ps[index] * (len(order) - rank)))
        corrected[index] = largest
    return corrected


def ranks(scores: np.ndarray, best: str = 'max') -> np.ndarray:
    """Ranks [rows, problems] of scores [rows, problems]: 1 is the best, equal scores share the mean of their ranks."""
    from scipy.stats import rankdata

    return rankdata(-scores if best == 'max' else scores, axis=0)


def mean_reciprocal_rank(scores: np.ndarray, best: str = 'max') -> np.ndarray:
    """Mean over problems of 1 / rank (Kazemnejad et al., 2023, arXiv:2305.19466); equal scores share the best rank."""
    from scipy.stats import rankdata

    return (1 / rankdata(-scores if best == 'max' else scores, method='min', axis=0)).mean(1)


def critical_difference(rows: int, blocks: int, level: float = LEVEL) -> float:
    """Critical difference of mean ranks (Nemenyi test; Demsar, 2006): rows whose mean ranks over `blocks` differ by
    less cannot be told apart."""
    from scipy.stats import studentized_range

    return float(
        studentized_range.ppf(level, rows, np.inf) / math.sqrt(2) * math.sqrt(rows * (rows + 1) / (6 * blocks))
    )


def groups(mean_ranks: Sequence[float], critical: float) -> list[tuple[int, int]]:
    """Largest runs of sorted mean ranks that lie within the critical difference, as first and last index: the bars of
    a critical-difference diagram."""
    found: list[tuple[int, int]] = []
    for first in range(len(mean_ranks)):
        last = max(index for index in range(first, len(mean_ranks)) if mean_ranks[index] - mean_ranks[first] < critical)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
