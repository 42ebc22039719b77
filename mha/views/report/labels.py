"""Settings that label the rows of a report, and those that follow from them."""

import math
from collections.abc import Collection, Sequence

TRAINED = 'trained_lengths'
"""Key of the trained lengths, which become a setting if runs differ in them."""
FIRST = ('task', 'model.position', TRAINED)
"""Settings that a reader looks for first. They always label rows."""


def following(keys: Sequence[str], rows: Collection[Sequence[str]]) -> dict[str, str]:
    """Settings that follow from another one, each with that one. `rows` are the different combinations of values of
    `keys`.

    A setting follows from another if rows with equal values of the other one have equal values of it. If two settings
    follow from each other, the one that comes first in `FIRST` or in `keys` stays. A setting with a value of its own in
    every row, such as a learning rate drawn at random, would determine all others; it counts only if it is in
    `FIRST`."""
    values = dict(zip(keys, zip(*rows, strict=True), strict=True))
    order = [*(key for key in FIRST if key in keys), *(key for key in keys if key not in FIRST)]
    strong = [key for key in order if key in FIRST or len({*values[key]}) < len(rows)]

    def determines(one: str, other: str) -> bool:
        return len({*zip(values[one], values[other], strict=True)}) == len({*values[one]})

    def precedes(one: str, other: str) -> bool:
        return determines(one, other) and (order.index(one) < order.index(other) or not determines(other, one))

    follow = [key for key in keys if key not in FIRST and any(precedes(other, key) for other in strong if other != key)]
    return {key: next(other for other in strong if other not in follow and determines(other, key)) for key in follow}


def natural(label: str) -> tuple[bool, float, str]:
    """Sort key of labels: numbers by size, before words."""
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    return (False, number, label) if math.isfinite(number) else (True, 0.0, label)
