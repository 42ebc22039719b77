"""Arguments of functions: types with limits, such as `Count`, and checks of calls against the signatures that use them.

    def window(left: Length, right: Length | None = None): ...

A spec, a config or a caller that gives another type, or a number out of range, gets a `UserError` before any work is
done.
"""

import functools
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

from mha.spec import LARGEST, SIZES, Call, UserError, choose

F = TypeVar('F', bound=Callable[..., Any])


class Bound(NamedTuple):
    """Limit of a number in a type hint, such as `Annotated[int, at_least(1)]`; `arguments` enforces it."""

    words: str
    holds: Callable[[Any], bool]


def at_least(low: int | float) -> Bound:
    return Bound(f'at least {low:,}', lambda value: value >= low)


def at_most(high: int | float) -> Bound:
    return Bound(f'at most {high:,}', lambda value: value <= high)


def above(low: int | float) -> Bound:
    return Bound(f'above {low:,}', lambda value: value > low)


def between(low: int | float, high: int | float) -> Bound:
    return Bound(f'from {low:,} to {high:,}', lambda value: low <= value <= high)


REACH = 2**23
"""Upper bound of positions. The angles of larger ones are not exact (`mha.positions.base.angles`)."""
Length = Annotated[int, at_least(1), at_most(REACH)]
"""Number of tokens or positions."""
Shift = Annotated[int, at_least(0), at_most(REACH)]
"""Number of tokens or positions, 0 included."""
Reach = Annotated[float, above(0), at_most(REACH)]
"""Positive length or scale, whole or not."""
Stretch = Annotated[float, at_least(1), at_most(REACH)]
"""Ratio of a new length to the trained one."""
Count = Annotated[int, at_least(1), at_most(2**20)]
"""Number of units, symbols or rows."""
Seed = Annotated[int, between(0, 2**32 - 1)]
"""Seed of random numbers."""
Several = Annotated[int, at_least(2), at_most(2**20)]
"""Number of symbols, at least two."""
Width = Annotated[int, at_least(1), at_most(2**16)]
"""Number of features or channels."""
Even = Annotated[int, Bound('even and above 0', lambda value: value > 0 and value % 2 == 0), at_most(2**16)]
"""Number of channels that form pairs."""
Repeats = Annotated[int, at_least(1), at_most(100)]
"""Number of repetitions, limited because each one lengthens the program or its run time."""
Base = Annotated[float, above(0), at_least(1), at_most(1e12)]
"""Base theta of the frequencies theta^(-2m/width), at least 1 so that none exceeds one radian per position."""
Spread = Annotated[float, between(0, 1000)]
"""Standard deviation of initial values."""
Level = Annotated[float, between(-1000, 1000)]
"""Initial value of either sign."""
Share = Annotated[float, between(0, 1)]
"""Fraction, 0 and 1 included."""
Part = Annotated[float, Bound('above 0 and at most 1', lambda value: 0 < value <= 1)]
"""Fraction above 0."""
_below_1 = Bound('at least 0 and below 1', lambda value: 0 <= value < 1)
Decay = Annotated[float, _below_1]
"""Fraction of a running mean that is kept at each step."""
Rate = Annotated[float, _below_1]
"""Fraction that dropout removes."""
_sizes = between(*SIZES)
Positive = Annotated[float, _sizes]
"""Number above 0, of any size."""
Size = Annotated[float, Bound(f'0, or {_sizes.words}', lambda value: value == 0 or _sizes.holds(value))]
"""Number of any size that is not negative."""
Steps = Annotated[int, at_least(1), at_most(LARGEST - 1)]
"""Number of training steps."""


def build(function: Callable[..., Any], call: Call, what: str, *given: Any, **extra: Any) -> Any:
    """Result of `function(*given, *call.args, **call.kwargs, **extra)`. Every mistake in the call raises a
    `UserError`."""
    chosen = named(function, call, what, len(given), extra)
    try:
        return function(*given, **chosen, **extra)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f'{what} {call.name!r}: {error}') from error


def named(
    function: Callable[..., Any], call: Call, what: str, given: int = 0, extra: Iterable[str] = ()
) -> dict[str, Any]:
    """Arguments of `call` by name, checked against the signature of `function`. Users may not set its first `given`
    parameters, nor those named in `extra`."""
    target, skip = (function.__init__, given + 1) if isinstance(function, type) else (function, given)
    accepts = [
        parameter
        for parameter in list(inspect.signature(target).parameters.values())[skip:]
        if parameter.name not in extra and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    usage = f'{call.name}({", ".join(str(p.replace(annotation=p.empty)) for p in accepts)})'
    by_name = {parameter.name: parameter for parameter in accepts}
    positional = [p.name for p in accepts if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(call.args) > len(positional):
        raise UserError(f'{what} {str(call)!r}: too many arguments, it is {usage}')
    values = dict(zip(positional, call.args, strict=False))
    for name, value in call.kwargs.items():
        if name in values:
            raise UserError(f'{what} {str(call)!r}: {name!r} is given twice')
        values[choose(name, by_name, f'argument of {what} {call.name!r}:')] = value
    hints = typing.get_type_hints(target, include_extras=True)
    for name, value in values.items():
        if name in hints:
            kinds = {_unlimited(option) for option in _options(hints[name])}
            if type(value) is int and float in kinds and not {int, bool} & kinds:
                values[name] = float(value)
            check(f'{what} {call.name!r}: {name}', values[name], hints[name], python=False)
    missing = [p.name for p in accepts if p.default is p.empty and p.name not in values]
    if missing:
        raise UserError(f'{what} {str(call)!r} needs {missing[0]!r}: {usage}')
    return values


def check(what: str, value: Any, hint: Any, python: bool = True) -> None:
    """Raises `UserError`, which begins with `what`, unless `value` has the type `hint` and is within its `Bound`s.
    `python` is whether the value is Python's, not that of a spec."""
    if not _fits(value, hint):
        raise UserError(f'{what} must be {_describe(hint, python)}, not {value!r}')
    for bound in bounds(hint):
        if isinstance(value, numbers.Real) and not bound.holds(value):
            raise UserError(f'{what} must be {bound.words}, not {value}')


def checked(function: F, only: Iterable[str] | None = None) -> F:
    """Decorator of a public function, or of a class with a constructor: numbers, text, lists, None and other plain
    arguments, or `only` those named, are checked against the signature, and a wrong one raises `UserError`. Arrays and
    other objects are left to the function."""
    if isinstance(function, type):
        setattr(function, '__init__', checked(function.__init__))  # noqa: B010 - pyright allows no other
        return typing.cast(Any, function)
    signature = inspect.signature(function)
    label = function.__qualname__.removesuffix('.__init__').rpartition('.')[2]
    hints = functools.cache(lambda: typing.get_type_hints(function, include_extras=True))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            given = {}  # the call below raises the same error
        for name, value in given.items():
            if signature.parameters[name].kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                continue
            plain = isinstance(value, bool | numbers.Number | str | bytes | list | tuple | dict | None)
            if plain and name in hints() and (only is None or name in only):
                check(f'{label}: {name}', value, hints()[name])
        return function(*args, **kwargs)

    return typing.cast(F, call)


def bounds(hint: Any) -> list[Bound]:
    """Limits of a number in a type hint, also in the options of a union."""
    limited = (option for option in _options(hint) if typing.get_origin(option) is Annotated)
    return [each for option in limited for each in option.__metadata__ if isinstance(each, Bound)]


def _options(hint: Any) -> tuple[Any, ...]:
    """Options of a union; otherwise the hint alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _unlimited(hint: Any) -> Any:
    """Type hint without its bounds."""
    return hint.__origin__ if typing.get_origin(hint) is Annotated else hint


def _fits(value: Any, hint: Any) -> bool:
    if len(options := _options(hint)) > 1:
        return any(_fits(value, option) for option in options)
    hint = _unlimited(hint)
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real  # of NumPy, too
        return isinstance(value, kind) and not isinstance(value, bool)
    if hint is Any:
        return True
    if origin is tuple and typing.get_args(hint)[1:] == (...,):
        return isinstance(value, tuple) and all(_fits(item, typing.get_args(hint)[0]) for item in value)
    hint = origin if origin in (Iterable, Sequence, list, dict) else hint
    return isinstance(value, hint) if isinstance(hint, type) else True


_WORDS = {
    int: 'a whole number',
    float: 'a number',
    bool: 'True or False',
    str: 'a quoted word',
    tuple: 'a list of numbers such as (1.0, 1.5)',
    type(None): 'None',
}


def _describe(hint: Any, python: bool) -> str:
    if len(options := [_unlimited(option) for option in _options(hint)]) > 1:
        # Options such as arrays cannot be written in a spec.
        typed = (option for option in options if python or option in _WORDS or typing.get_origin(option))
        return ' or '.join(dict.fromkeys(_describe(option, python) for option in typed))
    (hint,) = options
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return ' or '.join(repr(option) for option in typing.get_args(hint))
    name = str(getattr(hint, '__name__', hint))
    if python and hint is str:
        return 'a string'
    if python and hint not in _WORDS:
        return 'an array' if '[' in name else f'{"an" if name[0] in "AEIO" else "a"} {name}'
    return _WORDS.get(hint) or _WORDS.get(origin) or name
