"""Input of any kind, right or wrong: a config is built, or refused in one line that names the mistake, in little time
and memory."""

import ast
import contextlib
import functools
import inspect
import json
import random
import re
import resource
import signal
import typing
from pathlib import Path
from typing import Literal

import pytest

from configs import common
from mha import arguments, cli, positions, spec, tasks
from mha.run.build import build
from mha.spec import UserError
from tests.plugins import KINDS

CASES = 5000
SECONDS, MEMORY = 5, 2 * 2**30
"""What a case may take, of the processor and in bytes."""

# --- values, as they are written in a spec ----------------------------------------------------------------------------
NUMBERS = ['0', '1', '2', '3', '4', '8', '20', '64', '100', '1000', '4096', '0.1', '0.5', '0.9', '1.0', '2.5', '1e4']
EXTREME = ['-1', '-0.0', '-2.5', '1e-40', '1e-9', '1e30', '1e999', '-1e999', 'nan', 'inf', '65536', '1048576']
EXTREME += [str(sign * number) for number in (2**23, 2**31 - 1, 2**31, 2**32, 10**18, 10**30) for sign in (1, -1)]
OTHERS = ['True', 'None', "''", "'a'", "'\\x00'", "'\\ud800'", '()', '(1,)', '(1.0, 2.5)', '(1, (2, 3))', '[]', '{}']
OTHERS += ["b'x'", '1j', '...', '٣', '10**30', '0x10', repr('x' * 5000), '(' * 300 + ')' * 300, '-' * 3000 + '1']
WRONG = ['(', ')', '\x00', '\n', '\x1b[31m', '\ud800', '=', ',', '|', "'", '9' * 30, '٣']
"""Characters that turn a spec into something else."""
TEXTS = ['', ' ', 'none', 'a', 'x' * 5000, '(' * 3000, 'rope|' * 500 + 'rope', 'rope,' * 5000, '\ud800', '\x1b[31m']
TEXTS += [
    'pre',
    'post',
    'rms',
    'layer',
    'pooled',
    'token',
    'pair',
    'head',
    'channel',
    'mlm',
    'bfloat16',
    'float64',
    'example',
    'together',
]
TEXTS += ['in turn', '0:0', '0:0,1', '0:1;1:0', '9:9', 'decoder.0:0', '0:' + '9' * 30]
LENGTHS = [
    '4',
    '2-6',
    '1-40',
    '40,2',
    '5-1',
    '',
    '0',
    '1-10000000',
    '1-10000000000',
    '9' * 5000,
    '8000000',
    '500000',
    '1-9:3',
]
WHOLE = [0, 1, 2, 3, 4, 8, 16, 32], [-1, 2**16, 2**20, 2**31 - 1, 2**31, 2**32, 10**9, 10**20, 10**400, True, 1.5, '2']
FRACTIONS = [0.0, 1e-3, 0.1, 0.5, 1.0], [-0.0, -1.0, 1e-320, 1e38, 1e39, 1e300, *map(float, ('inf', '-inf', 'nan')), 3]
FRACTIONS[1].extend([10**400, 'a', None])
MEMBERS = [[0, 1], [1e-3, 1e-4], [], [0, 0], [[0]], [True], ['0'], [2**32], [-1], [10**400], [float('nan')], 'ab', 0]
MEMBERS += [list(range(2000))]

SPECS = {
    'task': 'task',
    'model.position': 'position',
    'model.decoder_position': 'position',
    'model.cross_position': 'position',
    'train.final_position': 'position',
    'model.pattern': 'pattern',
    'model.core': 'core',
    'model.normalizer': 'normalizer',
    'model.mixing': 'mixing',
    'model.mlp': 'mlp',
    'model.init': 'init',
    'optimizer.name': 'optimizer',
    'optimizer.schedule': 'schedule',
    'train.curriculum': 'curriculum',
}
"""Kind of the spec in each key that has one."""
BASE = {
    'model.layers': 2,
    'model.dim': 16,
    'model.heads': 2,
    'train.batch_size': 4,
    'train.lengths': '2-6',
    'eval.lengths': '4,8',
    'eval.examples': 4,
}
DEFAULTS = spec.flatten(common.get_config().to_dict())


@functools.cache
def parameters(kind, name):
    """Arguments that a spec may give to a plug-in: name, whether it must be given, and values within its limits."""
    function, given = KINDS[kind][name]
    target = function.__init__ if isinstance(function, type) else function
    hints, found = typing.get_type_hints(target, include_extras=True), []
    for parameter in list(inspect.signature(target).parameters.values())[given + isinstance(function, type) :]:
        if parameter.name not in ('rngs', 'inner', 'causal') and parameter.kind != parameter.VAR_KEYWORD:
            hint = hints[parameter.name]
            options = [repr(option) for option in typing.get_args(hint)] if typing.get_origin(hint) is Literal else []
            valid = [text for text in (*options, 'True', 'False', *NUMBERS, *EXTREME) if fits(text, hint)]
            found.append((parameter.name, parameter.default is parameter.empty, valid))
    return found


def fits(text, hint):
    """Whether the limits of an argument allow a value."""
    try:
        arguments.check('', ast.literal_eval(text), hint)
    except (UserError, ValueError):
        return False
    return True


def argument(rng, valid):
    """Value of an argument, mostly within its limits."""
    return rng.choice(valid if valid and rng.random() < 0.85 else [*NUMBERS, *EXTREME, *OTHERS])


def call(rng, kind):
    """One call of a plug-in: the shortest there is, or with some of its arguments."""
    name = rng.choice(sorted(KINDS[kind]))
    if kind in ('position', 'task') and rng.random() < 0.3:
        return {'position': positions, 'task': tasks}[kind].example(name)
    chosen = [
        f'{argument_name}={argument(rng, valid)}'
        for argument_name, needed, valid in parameters(kind, name)
        if needed or rng.random() < 0.4
    ]
    return f'{name}({", ".join(chosen)})'


def spec_of(rng, kind):
    """Spec of a kind: a call or several, rarely with a wrong character."""
    if rng.random() < 0.05:
        return rng.choice(TEXTS)
    several = kind in ('position', 'pattern', 'schedule') and rng.random() < 0.4
    text = rng.choice(['|', '|', ', ']).join(call(rng, kind) for _ in range(rng.randint(2, 3) if several else 1))
    if rng.random() < 0.1:
        place = rng.randint(0, len(text))
        text = text[:place] + rng.choice(WRONG) + text[place:]
    return text


def value(rng, key):
    """Value of a config key."""
    default = DEFAULTS.get(key)
    if key in SPECS:
        return spec_of(rng, SPECS[key])
    if key.startswith('population.'):
        return rng.choice(MEMBERS)
    if key.endswith('lengths'):
        return rng.choice(LENGTHS)
    kinds = {bool: ([True, False],), float: FRACTIONS, str: (TEXTS,)}
    return rng.choice(rng.choice(kinds.get(type(default), WHOLE)))


def config(number):
    """Settings of a case that differ from the defaults: a small model with some specs and some other keys."""
    rng = random.Random(number)
    causal = rng.random() < 0.6
    keys = rng.sample(sorted(SPECS), rng.randint(0, 2))
    keys += rng.sample(sorted(DEFAULTS), rng.randint(not keys, 2))
    task = 'reverse' if causal else 'reverse_string'
    return BASE | {'model.causal': causal, 'task': task} | {key: value(rng, key) for key in keys}


# --- what becomes of them ---------------------------------------------------------------------------------------------
class Late(BaseException):
    """A case has used up its time. No handler of exceptions catches it."""


@contextlib.contextmanager
def limited(seconds=SECONDS):
    """Ends what takes more time, of the processor, or memory than a case may."""

    def stop(*_):
        raise Late

    pages = int(Path('/proc/self/statm').read_text().split()[0])
    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGVTALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def one_line(message):
    """Whether a message suits a person: one line, not too long, without words of the program."""
    return len(message) < 2 * spec.SHOWN + 10 and not OBEYED.search(message) and not PYTHON.search(message)


def outcome(changes, path):
    """`'built'`, `'refused'`, or what is wrong with the answer to a config."""
    nested = common.get_config().to_dict()
    for key, value in changes.items():
        section, _, name = key.rpartition('.')
        (nested[section] if section else nested)[name] = value
    path.write_text(json.dumps(nested))  # which stays if the process dies
    try:
        with limited():
            build(cli.read_config(str(path), common.get_config).to_dict())
    except UserError as error:
        return 'refused' if one_line(str(error)) else f'is refused with the words {error}'
    except Late:
        return f'takes more than {SECONDS} s'
    except BaseException as error:
        return f'ends in {type(error).__name__}: {error}'
    return 'built'


OBEYED = re.compile('[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')
"""Characters that break a line, or that a terminal obeys."""
PYTHON = re.compile(r"<class '|object at 0x|Error\b|Traceback")
"""Words that say nothing to a person who has written a config."""


@pytest.mark.slow
def test_a_config_is_built_or_refused_in_one_line(tmp_path, capsys):
    outcomes = {number: outcome(config(number), tmp_path / 'config.json') for number in range(CASES)}
    wrong = {number: text for number, text in outcomes.items() if text not in ('built', 'refused')}
    with capsys.disabled():
        built = sum(text == 'built' for text in outcomes.values())
        print(f'{CASES} configs: {built} built, {CASES - built - len(wrong)} refused, {len(wrong)} neither')
    assert not wrong, [f'config({number}) {text}' for number, text in wrong.items()]
    assert built > CASES / 10
