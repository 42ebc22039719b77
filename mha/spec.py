"""Text that users type: specs such as `'scheme(size=2048)|other'`, names, and ranges of lengths.

Specs have the syntax of Python expressions. They are parsed with `ast` and never evaluated. Every mistake raises a
`UserError`: one line that says what is wrong and what would be right. The scripts print it and exit with code 2.
"""

import ast
import contextlib
import dataclasses
import difflib
import importlib
import json
import keyword
import math
import pkgutil
import re
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar('T')
LONGEST = 10_000_000
"""Largest length in a range. The limit catches typing errors that would fill the memory."""
MOST_LENGTHS = 1_000_000
"""Largest number of lengths in a range."""
LARGEST = 2**31
"""Upper bound of whole numbers in specs and configs, because array indices have 32 bits."""
PARTS = 32
"""Largest number of calls in a spec, because each one lengthens the program."""
SHOWN = 1000
"""Number of characters at the start, and at the end, of the message of a `UserError` that are shown."""
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
        return message if len(message) <= 2 * SHOWN else f'{message[:SHOWN]} ... {message[-SHOWN:]}'


@contextlib.contextmanager
def setting(key: str) -> Iterator[None]:
    """Context that puts a config key in front of the message of a `UserError`. The outermost context decides."""
    try:
        yield
    except UserError as error:
        error.key = key
        raise


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
        if len(calls) == PARTS:
            raise UserError(f'a spec has at most {PARTS} parts, not so many: {text!r}')
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
        match = re.fullmatch(r'([0-9]+)(?:-([0-9]+)(?::([0-9]+))?)?', part.strip())
        if match is None:
            raise UserError(f'cannot read {what} {str(text)!r} - write them like 10,20,40 or 1-40 or 50-500:50')
        # Python reads at most 4,300 digits; 20 are more than enough.
        low, high, stride = (int(number[:20]) for number in (match[1], match[2] or match[1], match[3] or '1'))
        if high > LONGEST:
            raise UserError(f'{what} {str(text)!r}: lengths end at {LONGEST:,}')
        if low < 1 or high < low or stride < 1:
            raise UserError(f'{what} {str(text)!r}: {part.strip()!r} is empty or below 1 - lengths start at 1')
        more = range(low, high + 1, stride)
        if len(found) + len(more) > MOST_LENGTHS:
            raise UserError(f'{what} {str(text)!r}: at most {MOST_LENGTHS:,} lengths - write them like 50-500:50')
        found.update(more)
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
