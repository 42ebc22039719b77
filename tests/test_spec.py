"""Specs, names and lengths: what a person types becomes a call, and every mistake one line that says what is right."""

import importlib
import inspect
import types
import typing
from typing import Annotated, Literal

import numpy as np
import pytest
from flax import nnx

from mha import arguments, cores, positions, spec, tasks
from mha.nn import masks
from mha.positions import Position
from mha.spec import Call, UserError
from tests.plugins import KINDS


@pytest.mark.parametrize(
    ('text', 'calls'),
    [
        ('rope', [Call('rope')]),
        ('  rope ', [Call('rope')]),
        ('rope()', [Call('rope')]),
        ('rope(theta=1e6)', [Call('rope', (), {'theta': 1e6})]),
        ('rope(1e6, 0.5)', [Call('rope', (1e6, 0.5))]),
        ('randomize(2048)|alibi', [Call('randomize', (2048,)), Call('alibi')]),
        ('a | b(1) | c(x=-2)', [Call('a'), Call('b', (1,)), Call('c', (), {'x': -2})]),
        ("t(a='x', b=None, c=True, d=(1, 2))", [Call('t', (), {'a': 'x', 'b': None, 'c': True, 'd': (1, 2)})]),
        ("f('a|b')|g", [Call('f', ('a|b',)), Call('g')]),
        ('global(2)|in', [Call('global', (2,)), Call('in')]),
        ("f(lambda=1, a='is not for you')", [Call('f', (), {'lambda': 1, 'a': 'is not for you'})]),
    ],
)
def test_parse(text, calls):
    assert spec.parse(text) == calls


@pytest.mark.parametrize(
    'text',
    [
        '',
        '   ',
        'rope(',
        'rope theta',
        'rope)',
        '1',
        "'rope'",
        'rope|1',
        'rope+none',
        'rope||none',
        'a.b',
        'a.b(1)',
        'rope(theta=x)',
        'rope(open("f"))',
        "rope(theta=__import__('os'))",
        'rope(1+1j*x)',
        'rope()()',
        'rope[1]',
        'lambda: 1',
        'a if b else c',
        'not rope',
        'global 2',
        'rope, none',
        'rope(*[1])',
        'rope(theta=1)\nrope',
        'randomize=2',
    ],
)
def test_unreadable_specs(text):
    with pytest.raises(UserError, match='cannot read') as error:
        spec.parse(text)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    'text',
    ["rope(**{'theta': 1e6})", 'rope(theta=1, theta=2)', 'rope({[]: 1})', '(' * 300 + 'rope' + ')' * 300],
    ids=['double star', 'an argument twice', 'an unhashable key', 'too deep'],
)
def test_no_argument_is_dropped_without_a_word(text):
    with pytest.raises(UserError):
        spec.parse(text)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('rope(theta=1e400)', 'numbers must be finite, not inf'),
        ('rope(theta=-1e400)', 'numbers must be finite, not -inf'),
        ('rope(theta=1e31)', 'numbers must be 0, or from 1e-30 to 1e+30 in size, not 1e+31'),
        ('fox(bias_init=-1e-40)', 'numbers must be 0, or from'),
        ('alibi(slopes=(1.0, 1e999))', 'numbers must be finite, not inf'),
        ('window(4294967296)', 'whole numbers must be below 2^31, not 4294967296'),
        ('window(-2147483648)', 'whole numbers must be below 2^31'),
        ('pi(scale=10000000000)|rope', 'whole numbers must be below 2^31, not 10000000000 - larger ones are written'),
    ],
)
def test_numbers_of_a_spec_have_bounds(text, words):
    with pytest.raises(UserError) as error:
        spec.parse(text)
    assert words in str(error.value)
    assert text in str(error.value)
    assert spec.parse('window(2147483647)') == [Call('window', (2**31 - 1,))]
    assert spec.parse('rope(1e30)') == [Call('rope', (1e30,))]


def test_keywords_are_shown_as_they_were_typed():
    """Python's keywords may be names, so that its grammar must not see them."""
    with pytest.raises(UserError) as error:
        spec.parse('global(2|for')
    assert str(error.value) == "cannot read 'global(2|for' - write it like 'name(argument=value)|name'"
    assert str(spec.parse('global(2)')[0]) == 'global(2)'
    assert spec.split('global(2), in|for') == ['global(2)', 'in | for']


@pytest.mark.parametrize('text', ['rope', 'global(2)', 'rope(2, theta=1e6)', "x(a='b|c', d=None)", 'randomize(2048)'])
def test_a_call_prints_as_it_was_written(text):
    (call,) = spec.parse(text)
    assert spec.parse(str(call)) == [call]


@pytest.mark.parametrize(
    ('text', 'items'),
    [
        ('rope', ['rope']),
        ('rope(1, 2)', ['rope(1, 2)']),
        ('rope, none', ['rope', 'none']),
        ('(rope, none)', ['rope', 'none']),
        ('[rope, none|t5(8, 20)]', ['rope', 'none | t5(8, 20)']),
        ('rope,', ['rope']),
        ("a(b='x,y'),c", ["a(b='x,y')", 'c']),
    ],
)
def test_split(text, items):
    assert spec.split(text) == items


def test_split_error():
    with pytest.raises(UserError, match='cannot read'):
        spec.split('rope,,none')


def test_per_layer():
    assert spec.per_layer('rope', 3, 'position') == ('rope',) * 3
    assert spec.per_layer('rope, none, t5(8, 20)', 3, 'position') == ('rope', 'none', 't5(8, 20)')
    assert spec.per_layer('(rope, none)', 2, 'position') == ('rope', 'none')
    for text in ('rope, none', 'a, b, c, d'):
        with pytest.raises(
            UserError, match=f"pattern '{text}' lists . specs for 3 layers - give one, or one per layer"
        ):
            spec.per_layer(text, 3, 'pattern')


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('10', (10,)),
        ('1-4,10,20-40:10', (1, 2, 3, 4, 10, 20, 30, 40)),
        ('50-500:50', tuple(range(50, 501, 50))),
        ('40,1-3,2', (1, 2, 3, 40)),
        ('1-10:4', (1, 5, 9)),
        (' 3 , 5 ', (3, 5)),
        ('(10, 20)', (10, 20)),
        ('[7]', (7,)),
        ('(10,)', (10,)),
    ],
)
def test_lengths(text, expected):
    assert spec.lengths(text) == expected


@pytest.mark.parametrize('text', ['0', '0-3', '-3', '5-3', '3-5:0', '', 'a', '1.5', '1-2-3', '1,,2', '3-5:-1', '1:2:3'])
def test_wrong_lengths(text):
    with pytest.raises(UserError, match=r'eval\.lengths') as error:
        spec.lengths(text, 'eval.lengths')
    assert len(str(error.value).splitlines()) == 1


def test_lengths_have_limits():
    """Numbers of any number of digits are read, and no list is made that fills the memory."""
    for text, words in {
        '9' * 5000: 'lengths end at 10,000,000',
        '1-10000000000': 'lengths end at 10,000,000',
        '1-10000000': 'at most 1,000,000 lengths',
        '1-1000000,1-1000000': 'at most 1,000,000 lengths',
        '\u0663': 'cannot read',  # a digit of another script
    }.items():
        with pytest.raises(UserError) as error:
            spec.lengths(text)
        assert words in str(error.value)
    assert spec.lengths('1-10000000:1000000')[-1] == 9_000_001


def test_a_spec_has_a_limit_of_parts():
    assert len(spec.parse('|'.join(['rope'] * spec.PARTS))) == spec.PARTS
    for parts in spec.PARTS + 1, 5000:
        with pytest.raises(UserError):
            spec.parse('|'.join(['rope'] * parts))


def test_messages_fit_a_screen():
    """However long, and whatever it quotes, a message is one line of characters that a terminal shows."""
    message = str(UserError(f'file \x1b[31m{"x" * 10**6}\n has \u2028 no key'))
    assert message.startswith(r'file \u001b[31mx')
    assert message.endswith('x  has   no key')
    assert len(message) < 2 * spec.SHOWN + 10


@pytest.mark.parametrize('text', ['10-', '10:', '10-20:', '10-:2'])
def test_unfinished_ranges_are_refused(text):
    with pytest.raises(UserError):
        spec.lengths(text)


# --- names -----------------------------------------------------------------------------------------------------------


def test_choose():
    assert spec.choose('rope', ['alibi', 'rope'], 'scheme') == 'rope'
    with pytest.raises(UserError) as error:
        spec.choose('ropee', ['t5', 'rope', 'alibi'], 'position scheme')
    assert str(error.value) == "unknown position scheme 'ropee' - did you mean 'rope'? (choices: alibi, rope, t5)"
    with pytest.raises(UserError) as error:
        spec.choose('zzz', ['rope'], 'scheme')
    assert str(error.value) == "unknown scheme 'zzz' (choices: rope)"
    with pytest.raises(UserError, match='choices: none'):
        spec.choose('x', [], 'scheme')


@pytest.mark.parametrize('package', [positions, tasks])
def test_names_are_files(package):
    found = spec.names(package)
    assert found == tuple(sorted(found))
    assert 'base' not in found
    assert not any(name.startswith('_') for name in found)
    assert found == package.names()


def test_known_names():
    assert {'none', 'sincos', 'learned', 'rope', 'alibi', 't5', 'txl', 'randomize'} <= set(positions.names())


def test_load():
    assert spec.load(positions, 'rope', Position, 'position scheme').__name__ == 'Rope'
    with pytest.raises(UserError, match="unknown position scheme 'base'"):
        spec.load(positions, 'base', Position, 'position scheme')
    with pytest.raises(TypeError, match='exactly one public Task, found 0'):
        spec.load(positions, 'rope', tasks.Task, 'task')


def test_a_plug_in_that_does_not_load_is_told_with_its_line(tmp_path, monkeypatch):
    (tmp_path / 'plugins').mkdir()
    (tmp_path / 'plugins' / '__init__.py').write_text('')
    (tmp_path / 'plugins' / 'typo.py').write_text('x = 1\ndef f(:\n')
    (tmp_path / 'plugins' / 'fails.py').write_text('import math\n\nmath.sqrt("x")\n')
    monkeypatch.syspath_prepend(tmp_path)
    package = importlib.import_module('plugins')
    for name, words in {'typo': 'SyntaxError in typo.py, line 2', 'fails': 'TypeError in fails.py, line 3'}.items():
        with pytest.raises(UserError, match=f"scheme '{name}' cannot be loaded: {words}") as error:
            spec.load(package, name, Position, 'scheme')
        assert len(str(error.value).splitlines()) == 1


def test_names_of_a_package_on_disk(tmp_path):
    """A file is a plug-in unless it is `base` or begins with an underscore."""
    for name in ('b', 'a', 'base', '_hidden', '__init__'):
        (tmp_path / f'{name}.py').write_text('')
    package = types.ModuleType('package')
    package.__path__ = [str(tmp_path)]
    assert spec.names(package) == ('a', 'b')


# --- build -----------------------------------------------------------------------------------------------------------


class Thing:
    def __init__(
        self,
        given: str,
        size: int,
        rate: float = 0.5,
        kind: Literal['a', 'b'] = 'a',
        flag: bool = False,
        limit: int | None = None,
        array: int | np.ndarray = 0,
        slopes: tuple[int | float, ...] | None = None,
        rows: Annotated[int, arguments.above(0), arguments.at_most(2**20)] | None = None,
        *,
        extra: object = None,
    ):
        if size > 100:
            raise ValueError('size is above 100')
        self.values = (given, size, rate, kind, flag, limit, extra)


def function(given, size: int, *, rate: float = 0.5):
    return given, size, rate


def build(text, target=Thing, *given, **extra):
    (call,) = spec.parse(text)
    return arguments.build(target, call, 'thing', *(given or ('G',)), **extra)


@pytest.mark.parametrize(
    ('text', 'values'),
    [
        ('x(3)', ('G', 3, 0.5, 'a', False, None, 'E')),
        ('x(size=3, rate=1)', ('G', 3, 1, 'a', False, None, 'E')),
        ("x(3, 0.1, 'b', True, 9)", ('G', 3, 0.1, 'b', True, 9, 'E')),
        ('x(3, limit=None)', ('G', 3, 0.5, 'a', False, None, 'E')),
    ],
)
def test_build(text, values):
    assert build(text, extra='E').values == values


def test_build_a_function():
    assert build('f(3, rate=2)', function) == ('G', 3, 2)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            'x',
            r"thing 'x' needs 'size': x\(size, rate=0.5, kind='a', flag=False, limit=None, .*, rows=None\)",
        ),
        ("x(1, 2, 'a', True, 3, 4, 5, 6, 7)", 'too many arguments'),
        ('x(1, size=2)', "'size' is given twice"),
        ('x(1, rat=2)', "unknown argument of thing 'x': 'rat' - did you mean 'rate'"),
        ('x(1, extra=2)', "unknown argument of thing 'x': 'extra'"),
        ('x(1, given=2)', "unknown argument of thing 'x': 'given'"),
        ('x(1.0)', 'size must be a whole number, not 1.0'),
        ('x(True)', 'size must be a whole number, not True'),
        ("x('1')", 'size must be a whole number'),
        ('x(1, rate=True)', 'rate must be a number, not True'),
        ("x(1, rate='1')", 'rate must be a number'),
        ('x(1, None)', 'rate must be a number, not None'),
        ("x(1, kind='c')", "kind must be 'a' or 'b', not 'c'"),
        ('x(1, kind=[])', "kind must be 'a' or 'b'"),
        ('x(1, flag=1)', 'flag must be True or False, not 1'),
        ('x(1, limit=2.5)', 'limit must be a whole number or None, not 2.5'),
        ('x(101)', r"thing 'x': size is above 100"),
        ('x(1, slopes=8)', r'slopes must be a list of numbers such as \(1.0, 1.5\) or None, not 8'),
        (
            'x(1, slopes=(1, (2, 3)))',
            r'slopes must be a list of numbers such as \(1.0, 1.5\) or None, not \(1, \(2, 3\)\)',
        ),
        ('x(1, slopes=(1, True))', 'slopes must be a list of numbers'),
        ('x(1, array=2.5)', 'array must be a whole number, not 2.5'),
        ('x(1, rows=0)', "thing 'x': rows must be above 0, not 0"),
        ('x(1, rows=1048577)', "thing 'x': rows must be at most 1,048,576, not 1048577"),
        ('x(1, rows=2.5)', 'rows must be a whole number or None, not 2.5'),
    ],
)
def test_build_errors(text, message):
    with pytest.raises(UserError, match=message) as error:
        build(text, extra='E')
    assert len(str(error.value).splitlines()) == 1


def test_arguments():
    (call,) = spec.parse('f(2, rate=1)')
    assert arguments.named(function, call, 'thing', given=1) == {'size': 2, 'rate': 1.0}
    with pytest.raises(UserError, match=r"unknown argument of thing 'f': 'rate' \(choices: size\)"):
        arguments.named(function, call, 'thing', given=1, extra=['rate'])


@pytest.mark.parametrize(('kind', 'name'), [(kind, name) for kind, found in KINDS.items() for name in found])
def test_numbers_of_plug_ins_have_bounds(kind, name):
    """Numbers without bounds allow models that exceed any memory or have no meaning."""
    kind, given = KINDS[kind][name]
    target = kind.__init__ if isinstance(kind, type) else kind
    plain, hints = typing.get_type_hints(target), typing.get_type_hints(target, include_extras=True)
    for parameter in list(inspect.signature(kind).parameters)[given:]:
        hint = plain.get(parameter)
        if {int, float} & {hint, *typing.get_args(hint)}:
            assert arguments.bounds(hints[parameter]), (
                f'{parameter}: write its limits into its hint, as Count of mha.arguments'
            )


@pytest.mark.parametrize(
    ('make', 'text', 'words'),
    [
        (positions.make, 'cpb(depth=1000000)', 'depth must be at most 100, not 1000000'),
        (positions.make, 'cpb(width=1000000000)', 'width must be at most 65,536'),
        (positions.make, 'rope(theta=1e-3)', 'theta must be at least 1, not 0.001'),
        (positions.make, 'randomize(max_position=2147483647)|rope', 'max_position must be at most 8,388,608'),
        (positions.make, "randomize(test='average', draws=1000)", 'draws must be at most 100'),
        (positions.make, 'sandwich(dbar=1048576)', 'dbar must be at most'),
        (positions.make, 'learned(init_std=-1)', 'init_std must be from 0 to 1,000, not -1.0'),
        (positions.make, 'yarn(4, 64, attention_factor=-1)', 'attention_factor must be above 0, not -1.0'),
        (tasks.make, 'bucket_sort(symbols=2147483647)', 'symbols must be at most 1,048,576'),
        (tasks.make, 'listops(max_depth=2147483647)', 'max_depth must be at most 1,000'),
        (cores.make, "linear(features='performer', seed=-1)", 'seed must be at least 0, not -1'),
        (cores.make, 'flash(block=3)', 'block must be a power of two from 16 to 1,024, not 3'),
        (masks.make, 'random(2, draws=1000000)', 'draws must be at most 32'),
        (masks.make, 'window(2147483647)', 'left must be at most 8,388,608'),
    ],
)
def test_absurd_numbers_are_refused(make, text, words):
    given = dict(dims=DIMS, rngs=nnx.Rngs(0)) if make is positions.make else {}
    with pytest.raises(UserError) as error:
        make(text, **given)
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_defects_are_not_mistakes_of_the_user():
    def broken(given):
        raise KeyError('inside')

    with pytest.raises(KeyError):
        build('x', broken)


DIMS = positions.Dims(16, 2, 8, max_len=8)


def test_a_whole_number_may_stand_for_a_number():
    assert isinstance(build('x(3, rate=1)').values[2], float)
    positions.make('rope(theta=500)', DIMS, rngs=nnx.Rngs(0))


@pytest.mark.parametrize('text', ['rope(theta=0.0)', 'rope(theta=-1.0)', 'sincos(theta=0.0)', 'txl(theta=-2.0)'])
def test_arguments_that_would_give_nan_are_refused(text):
    with pytest.raises(UserError, match='theta'):
        positions.make(text, DIMS, rngs=nnx.Rngs(0))


def test_short():
    keys = {'seed': 'seed', 'model.position': 'position', 'optimizer.name': 'optimizer'}
    assert {key: spec.short(key) for key in keys} == keys


@arguments.checked
def public(count: arguments.Count, rate: float = 0.5, name: str | None = None, array: np.ndarray | None = None, **rest):
    return count, rate, name, array, rest


def test_arguments_of_a_public_function_are_checked():
    array = np.zeros(2)
    assert public(np.int64(2), rate=1, array=array, other=object) == (2, 1, None, array, {'other': object})
    for given, words in (
        ({'count': 0}, 'public: count must be at least 1, not 0'),
        ({'count': True}, 'count must be a whole number, not True'),
        ({'count': 1, 'rate': '1'}, "rate must be a number, not '1'"),
        ({'count': 1, 'name': b'x'}, "name must be a string or None, not b'x'"),
        ({'count': 1, 'array': [1]}, 'array must be a ndarray or None, not [1]'),
    ):
        with pytest.raises(UserError) as error:
            public(**given)
        assert words in str(error.value)
    with pytest.raises(TypeError, match='missing 1 required'):
        public()
