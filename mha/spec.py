"""Text that users type: specs such as `'scheme(size=2048)|other'`, names, and ranges of lengths.

Specs have the syntax of Python expressions. They are parsed with `ast` and never evaluated. Every mistake raises a
`UserError`: one line that says what is wrong and what would be right. The scripts print it and exit with code 2.
"""

import ast
import contextlib
import dataclasses
import difflib
import functools
import importlib
import inspect
import json
import keyword
import math
import numbers
import pkgutil
import re
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

T = TypeVar('T')
F = TypeVar('F', bound=Callable[..., Any])
LONGEST = 10_000_000
"""Largest length in a range. The limit catches typing errors that would fill the memory."""
MOST_WORDS = 4000
"""Largest number of characters of a message, which may quote a text of any size."""
LARGEST = 2**31
"""Upper bound of whole numbers in specs and configs, because array indices have 32 bits."""
SIZES = (1e-30, 1e30)
"""Smallest and largest absolute value of other numbers in specs, except 0. In this range, float32 holds them and their
products with the numbers of a model."""
_KEYWORD = re.compile(rf'\b({"|".join(set(keyword.kwlist) - {"True", "False", "None"})})\b')
_MARK = '\u00b7'
"""Character that is appended to Python keywords, so that they parse as names: specs may say `global(2)`."""


_OBEYED = re.compile('[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')
"""Characters that move the cursor, change colours, break lines or reverse the direction of text; and surrogates, which
no terminal can be sent."""
_LIBRARY = re.compile(r'^<frozen|[/\\\\](site-packages|lib[/\\\\]python[\d.]+)[/\\\\]')
"""Paths of files that are part of Python or of an installed package."""


class UserError(ValueError):
    """Mistake of the user. The message is one line that names the mistake and the choices."""

    key = ''
    """Config key or flag with the mistake. The message begins with it."""

    def __str__(self) -> str:
        message = ' '.join(super().__str__().splitlines())  # names of files and columns may have line breaks
        message = escaped(f'{self.key}: {message}' if self.key else message)
        return message if len(message) <= MOST_WORDS else f'{message[: MOST_WORDS // 2]} ... {message[-100:]}'


@contextlib.contextmanager
def setting(key: str) -> Iterator[None]:
    """Context that puts a config key in front of the message of a `UserError`. The outermost context decides."""
    try:
        yield
    except UserError as error:
        error.key = key
        raise


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
Decay = Annotated[float, Bound('at least 0 and below 1', lambda value: 0 <= value < 1)]
"""Fraction of a running mean that is kept at each step."""


@dataclasses.dataclass(frozen=True)
class Call:
    """One call `name(arg, key=value)` in a spec."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        arguments = [repr(value) for value in self.args]
        arguments += [f'{key}={value!r}' for key, value in self.kwargs.items()]
        return f'{self.name}({", ".join(arguments)})' if arguments else self.name


def parse(text: str) -> list[Call]:
    """Calls in a spec, from left to right, such as the two of `'one(2048)|two(theta=1e6)'`."""
    node = _expression(text)
    calls: list[Call] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        calls.append(_call(node.right, text))
        node = node.left
    return [_call(node, text), *reversed(calls)]


def split(text: str) -> list[str]:
    """Specs in a comma-separated list: `'one, two'` -> `['one', 'two']`. Commas inside brackets do not separate."""
    node = _expression(text)
    return [ast.unparse(item) for item in node.elts] if isinstance(node, ast.Tuple | ast.List) else [text]


def per_layer(text: str, layers: int, what: str) -> tuple[str, ...]:
    """Specs of all layers: `'one'` gives the same spec for every layer, `'one, two'` one spec for each of two
    layers."""
    specs = split(text)
    if len(specs) not in (1, layers):
        raise UserError(f'{what} {text!r} lists {len(specs)} specs for {layers} layers - give one, or one per layer')
    return tuple(specs * layers if len(specs) == 1 else specs)


def _expression(text: str) -> ast.expr:
    if not isinstance(text, str):
        raise UserError(f'a spec is text such as {"name(argument=value)|name"!r}, not {text!r}')
    try:
        tree = ast.parse(_KEYWORD.sub(rf'\1{_MARK}', text.strip()), mode='eval')
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError(f'cannot read {text!r} - write it like {"name(argument=value)|name"!r}') from None
    for node in ast.walk(tree):
        for field, value in ast.iter_fields(node):
            if isinstance(value, str):
                setattr(node, field, re.sub(rf'{_KEYWORD.pattern}{_MARK}', r'\1', value))
    return tree.body


def _call(node: ast.expr, text: str) -> Call:
    if isinstance(node, ast.Constant):
        raise UserError(f'cannot read {text!r} - write a name, without quotes inside')
    if isinstance(node, ast.Name):
        return Call(node.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        try:
            args = tuple(ast.literal_eval(argument) for argument in node.args)
            kwargs = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
            if len(kwargs) == len(node.keywords) and 'None' not in kwargs:  # no argument twice, no **mapping
                _check_numbers((args, *kwargs.values()), text)
                return Call(node.func.id, args, kwargs)
        except UserError:
            raise
        except (ValueError, TypeError):
            raise UserError(
                f'cannot read the arguments in {text!r} - use numbers, quoted words, True or None'
            ) from None
    raise UserError(f'cannot read {text!r} - write it like {"name(argument=value)|name"!r}')


def _check_numbers(value: Any, text: str) -> None:
    """Raises `UserError` for numbers that are not finite, whole numbers of 2^31 or more, and other numbers whose
    absolute value is not within `SIZES`."""
    if isinstance(value, tuple | list):
        for item in value:
            _check_numbers(item, text)
    elif isinstance(value, int) and abs(value) >= LARGEST:
        raise UserError(f'{text!r}: whole numbers must be below 2^31, not {value} - larger ones are written like 1e10')
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f'{text!r}: numbers must be finite, not {value}')
    elif isinstance(value, float) and value and not SIZES[0] <= abs(value) <= SIZES[1]:
        raise UserError(f'{text!r}: numbers must be 0, or from {SIZES[0]} to {SIZES[1]} in size, not {value}')


def choose(name: str, choices: Iterable[str], what: str) -> str:
    """`name`, if it is one of `choices`. Otherwise raises a `UserError` that lists them and suggests the most similar
    one."""
    choices = sorted(choices)
    if name in choices:
        return name
    near = difflib.get_close_matches(str(name), choices, n=1)
    hint = f' - did you mean {near[0]!r}?' if near else ''
    raise UserError(f'unknown {what} {name!r}{hint} (choices: {", ".join(choices) or "none"})')


def names(package: types.ModuleType) -> tuple[str, ...]:
    """Names of the plug-ins in a package: all modules except `base` and those with a leading underscore."""
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(name for name in found if name != 'base' and not name.startswith('_')))


def load(package: types.ModuleType, name: str, base: type, what: str) -> type:
    """Public subclass of `base` in the file `name` of `package`. Each file defines exactly one."""
    choose(name, names(package), what)
    try:
        module = importlib.import_module(f'{package.__name__}.{name}')
    except (Exception, SystemExit) as error:  # any mistake in the user's file
        raise UserError(f'{what} {name!r} cannot be loaded: {failure(error)}') from error
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    public = [value for value in classes if not value.__name__.startswith('_')]
    if len(public) != 1:
        raise TypeError(f'{module.__name__} must define exactly one public {base.__name__}, found {len(public)}')
    return public[0]


def loadable(names: Iterable[str], example: Callable[[str], str]) -> tuple[dict[str, str], list[str]]:
    """Shortest specs of all plug-ins by name, and one line for each plug-in that does not load."""
    found, broken = {}, []
    for name in names:
        try:
            found[name] = example(name)
        except (UserError, TypeError) as error:
            broken.append(f'broken: {error}')
    return found, broken


def failure(error: BaseException) -> str:
    """Description of an error in a file of the user, with file and line: `'SyntaxError in rope.py, line 3: invalid
    syntax'`."""
    frames = traceback.extract_tb(error.__traceback__)
    name, line = (frames[-1].filename, frames[-1].lineno) if frames else ('', None)
    reason = str(error)
    if isinstance(error, SyntaxError):
        name, line, reason = error.filename or name, error.lineno, error.msg
    user_frame = next((frame for frame in reversed(frames) if not _LIBRARY.search(frame.filename)), None)
    if user_frame and not isinstance(error, SyntaxError):
        name, line = user_frame.filename, user_frame.lineno
    return f'{type(error).__name__} in {Path(name).name}, line {line}: {" ".join(reason.split())}'


def build(function: Callable[..., Any], call: Call, what: str, *given: Any, **extra: Any) -> Any:
    """Result of `function(*given, *call.args, **call.kwargs, **extra)`. Every mistake in the call raises a
    `UserError`."""
    chosen = arguments(function, call, what, len(given), extra)
    try:
        return function(*given, **chosen, **extra)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f'{what} {call.name!r}: {error}') from error


def arguments(
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
    hints, limits = (typing.get_type_hints(target, include_extras=extras) for extras in (False, True))
    for name, value in values.items():
        options = typing.get_args(hints.get(name)) or (hints.get(name),)
        if type(value) is int and float in options and not {int, bool} & set(options):
            values[name] = float(value)
        if name in hints:
            check(f'{what} {call.name!r}: {name}', values[name], hints[name], limits[name], python=False)
    missing = [p.name for p in accepts if p.default is p.empty and p.name not in values]
    if missing:
        raise UserError(f'{what} {str(call)!r} needs {missing[0]!r}: {usage}')
    return values


def check(what: str, value: Any, hint: Any, limits: Any, python: bool = True) -> None:
    """Raises `UserError`, which begins with `what`, unless `value` has the type `hint`, within the `Bound`s in
    `limits`, the same hint with its annotations. `python` is whether the value is Python's, not that of a spec."""
    if not _fits(value, hint):
        raise UserError(f'{what} must be {_describe(hint, python)}, not {value!r}')
    for bound in bounds(limits):
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
    hints = functools.cache(lambda extras: typing.get_type_hints(function, include_extras=extras))

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
            if plain and name in hints(False) and (only is None or name in only):
                check(f'{label}: {name}', value, hints(False)[name], hints(True)[name])
        return function(*args, **kwargs)

    return typing.cast(F, call)


def bounds(hint: Any) -> list[Bound]:
    """Limits of a number in a type hint, also in the options of a union."""
    if typing.get_origin(hint) is Annotated:
        return [each for each in hint.__metadata__ if isinstance(each, Bound)]
    return [bound for option in typing.get_args(hint) for bound in bounds(option)]


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real  # of NumPy, too
        return isinstance(value, kind) and not isinstance(value, bool)
    if hint is Any:
        return True
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
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return ' or '.join(repr(option) for option in options)
    if origin in (typing.Union, types.UnionType):
        # Options such as arrays cannot be written in a spec.
        typed = (option for option in options if python or option in _WORDS or typing.get_origin(option))
        return ' or '.join(dict.fromkeys(_describe(option, python) for option in typed))
    name = str(getattr(hint, '__name__', hint))
    if python and hint is str:
        return 'a string'
    if python and hint not in _WORDS:
        return 'an array' if '[' in name else f'{"an" if name[0] in "AEIO" else "a"} {name}'
    return _WORDS.get(hint) or _WORDS.get(origin) or name


def flatten(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Flat config with keys as on the command line: `{'model': {'heads': 8}}` -> `{'model.heads': 8}`."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f'{prefix}{key}.') if isinstance(value, Mapping) else {f'{prefix}{key}': value}
    return flat


def short(key: str) -> str:
    """Short form of a config key: `'model.position'` -> `'position'`, and `'optimizer.name'` -> `'optimizer'`."""
    section, _, last = key.rpartition('.')
    return section if section and last == 'name' else last


def as_text(value: Any) -> str:
    """Text of a setting for comparison and display; 1 and 1.0 are equal."""
    return f'{value:.12g}' if isinstance(value, float) else str(value)


def check_utf8(text: str, what: str) -> None:
    """Raises `UserError` for a text with surrogates: bytes of a command line that are no UTF-8."""
    if any('\ud800' <= character <= '\udfff' for character in text):
        raise UserError(f'{what} must be UTF-8, not {text!r}')


def escaped(text: str, keep: str = '') -> str:
    """`text` with escapes, as in JSON, for the characters that a terminal obeys instead of showing them, except those
    to `keep`."""
    return _OBEYED.sub(lambda match: match[0] if match[0] in keep else json.dumps(match[0])[1:-1], text)


def visible(text: str) -> str:
    """`text` with a dot for every character that terminals and tables do not show as one character."""
    return ''.join(character if character.isprintable() else '·' for character in text)


def only(conditions: Iterable[str], configs: Mapping[T, Mapping[str, Any]]) -> list[T]:
    """Names of the flattened configs that meet all conditions. `['model.heads=4', 'seed=0', 'seed=1']` asks for this
    number of heads and one of these seeds. Raises `UserError` for a key or value that no config has."""
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        key, equals, value = condition.partition('=')
        if not equals:
            raise UserError(f'--only={condition}: write it as key=value, such as --only=model.position=rope')
        known = {key for config in configs.values() for key in config}
        ends = [each for each in known if each.endswith(f'.{key}') and not each.startswith('population.')]
        key = ends[0] if key not in known and len(ends) == 1 else choose(key, known, 'key in --only')
        values = {as_text(config.get(key)) for config in configs.values()}
        wanted.setdefault(key, []).append(choose(value, values, f'value of {key} in --only'))
    found = [
        name
        for name, config in configs.items()
        if all(as_text(config.get(key)) in values for key, values in wanted.items())
    ]
    if not found:
        raise UserError(f'nothing meets all of --only={", ".join(conditions)}')
    return found


def lengths(text: str, what: str = 'lengths') -> tuple[int, ...]:
    """Lengths in a range, sorted and without duplicates: `'1-4,10,20-40:10'` -> `(1, 2, 3, 4, 10, 20, 30, 40)`."""
    found: set[int] = set()
    for part in str(text).strip('()[] ,').split(','):
        match = re.fullmatch(r'(\d+)(?:-(\d+)(?::(\d+))?)?', part.strip())
        if match is None:
            raise UserError(f'cannot read {what} {str(text)!r} - write them like 10,20,40 or 1-40 or 50-500:50')
        low, high, stride = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if high > LONGEST:
            raise UserError(f'{what} {str(text)!r}: lengths end at {LONGEST:,}')
        if low < 1 or high < low or stride < 1:
            raise UserError(f'{what} {str(text)!r}: {part.strip()!r} is empty or below 1 - lengths start at 1')
        found.update(range(low, high + 1, stride))
    return tuple(sorted(found))


def compact(numbers: Sequence[int]) -> str:
    """Text of a sorted list of lengths, the inverse of `lengths`: five or more evenly spaced ones become a range, `(5,
    10, 15, 20, 25)` -> `'5-25:5'`."""
    parts, rest = [], list(numbers)
    while rest:
        step = rest[1] - rest[0] if len(rest) > 1 else 1
        count = 1
        while count < len(rest) and rest[count] - rest[count - 1] == step:
            count += 1
        count = count if count >= 5 else 1
        parts.append(str(rest[0]) if count == 1 else f'{rest[0]}-{rest[count - 1]}' + (f':{step}' if step > 1 else ''))
        rest = rest[count:]
    return ','.join(parts)
