"""The interval of a rate that some examples tell."""

import math

Z95 = 1.959964
"""The normal quantile of a 95 % interval."""


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a rate of which `successes` in `count` independent examples are known (Wilson, 1927); unlike
    the normal approximation, it is right near 0 and 1."""
    rate, z2 = successes / count, Z95**2 / count
    centre, half = (rate + z2 / 2) / (1 + z2), math.sqrt(z2 * (rate * (1 - rate) + z2 / 4)) / (1 + z2)
    return min(max(centre - half, 0.0), rate), max(min(centre + half, 1.0), rate)
