"""Cases of the fixture `case` for schemes of causal models."""

import pytest

causal_cases = pytest.mark.parametrize(
    'case',
    [
        pytest.param((True, heads, where), marks=[pytest.mark.slow] * (heads == 4))
        for heads in (12, 4)
        for where in ('contiguous', 'random')
    ],
    indirect=True,
    ids=str,
)
