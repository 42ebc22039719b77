"""Public functions of `mha.probes`: each refuses what is no run, file or recording in one line."""

import inspect

import pytest

from mha import probes
from mha.spec import UserError

FUNCTIONS = {name: getattr(probes, name) for name in probes.__all__ if inspect.isfunction(getattr(probes, name))}


@pytest.mark.parametrize('name', FUNCTIONS)
def test_a_number_is_no_argument(name):
    required = [
        parameter
        for parameter in inspect.signature(FUNCTIONS[name]).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    with pytest.raises(UserError, match=f'{name}: .* must be .*, not 3$'):
        FUNCTIONS[name](*[3] * len(required))
