"""How the scripts meet the command line: flags in, mistakes out as one line with exit code 2."""

import difflib
import inspect
import json
import os
import re
import runpy
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from absl import app, flags

from mha import spec
from mha.run import versions
from mha.spec import UserError

SMALLER = 'choose smaller batches or shorter lengths; to train, more train.microbatches or model.remat=True'
EXPECTED = {'int()': 'a whole number', 'float': 'a number', 'boolean': 'true or false'}


def run(main: Callable[..., None], defaults: Callable[[], Any] | None = None) -> None:
    """Parses the flags and calls `main`, with the other arguments where it has `takes_arguments`. A mistake of the
    user, or too little memory, ends the program with one line on stderr and exit code 2; an interrupt ends it with 130,
    a reader that has gone, such as `| head`, with 141; anything else is a defect and keeps its traceback.

    `defaults` makes the config that `--config` is compared with, of a script that takes one."""
    app.define_help_flags()
    try:
        arguments = _parse_flags(defaults)
        if arguments and not getattr(main, 'takes_arguments', False):
            raise UserError(f'unexpected argument {arguments[0]!r} - flags are written --name=value')
        main(*arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        for stream in sys.stdout, sys.stderr:  # what is still to be written goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(141)
    except UserError as error:
        print(f'{Path(sys.argv[0]).name}: {error}', file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:  # jax's own are such; reports are made without jax
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        print(f'{Path(sys.argv[0]).name}: out of memory ({one_line(error)[:200]}) - {SMALLER}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f'\n{Path(sys.argv[0]).name}: interrupted - the same command resumes', file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(130)  # at once: `sys.exit` waits for threads, which may be compiling for a minute


def _parse_flags(defaults: Callable[[], Any] | None) -> list[str]:
    while '--config' in sys.argv[:-1]:  # `--config file` is `--config=file`; everything below reads the latter
        at = sys.argv.index('--config')
        sys.argv[at : at + 2] = [f'--config={sys.argv[at + 1]}']
    configs = [argument.partition('=')[2] for argument in sys.argv[1:] if re.match(r'--?config=', argument)]
    if len(configs) > 1:
        raise UserError(f'--config is given twice, as {configs[0]!r} and {configs[1]!r}')
    for argument in sys.argv[1:]:
        if match := re.match(r'--?(config\..*)=None$', argument):
            raise UserError(f'--{match[1]} cannot be set to None - leave the flag out, or write it in the config file')
    if configs and defaults:
        config = read_config(configs[0], defaults)
        flags.FLAGS['config'].parser.parse = lambda argument: config
    try:
        return flags.FLAGS(sys.argv)[1:]
    except (AttributeError, KeyError) as error:  # a key that the config does not have
        near = re.search(r'Did you mean "(.+?)" instead of "(.+?)"', str(error))
        words = near[2] if near else re.sub(r'\W*(\w+)\W.*', r'\1', one_line(error))
        hint = f' - did you mean {near[1]!r}?' if near else '; configs/common.py lists those there are'
        if any(argument.lstrip('-').startswith('config.data') for argument in sys.argv[1:]) and not near:
            hint = "; arguments of a task go into its spec: --config.task='text(...)'"
        raise UserError(f'the config has no key {words!r}{hint}') from error
    except flags.IllegalFlagValueError as error:
        flag, _, reason = str(error).removeprefix('flag ').partition(': ')
        if flag.endswith('=None'):
            raise UserError(f'{flag.removesuffix("None")}... is missing') from error
        if 'as a ConfigDict' in reason:
            raise UserError(f'{flag}: a section - set one of its keys; configs/common.py lists them') from error
        expected = next((text for kind, text in EXPECTED.items() if kind in reason), None)
        raise UserError(f'{flag}: expected {expected}' if expected else f'{flag}: {one_line(reason)}') from error
    except flags.Error as error:
        raise UserError(one_line(error)) from error


def read_config(text: str, defaults: Callable[[], Any]) -> Any:
    """The config that `--config=text` names: `configs/x.py`, `configs/x.py:argument` for its `get_config(argument)`, or
    the `config.json` of a run. It has the keys of `defaults()`, with values of their kinds."""
    path, like = config_file(text)[0], defaults()
    if path.suffix == '.json':
        return _saved_config(path, like)
    config = call(text, 'get_config')
    if not isinstance(config, type(like)):
        got = 'nothing' if config is None else f'a {type(config).__name__}'
        raise UserError(f'get_config() of {path} returns {got}, not a config - {_HOW}')
    given = spec.flatten(config.to_dict())
    for key, default in spec.flatten(like.to_dict()).items():
        if key not in given and not key.startswith('population.'):
            raise UserError(f'get_config() of {path} returns a config without {key!r} - {_HOW}')
        _check_kind(path, key, given.get(key), default)
    config.lock()
    return config


_HOW = 'begin it with config = common.get_config(), end it with return config'


def _saved_config(path: Path, config: Any) -> Any:
    """The config that a run has saved; keys that it lacks, as a later version added them, keep their defaults."""
    try:
        saved = json.loads(path.read_text())
        assert isinstance(saved, dict)
    except (OSError, ValueError, AssertionError) as error:
        raise UserError(f'cannot read {path}: {one_line(error) or "it must hold one JSON object"}') from error
    like = spec.flatten(config.to_dict())
    saved = spec.flatten(versions.current(saved))
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()}
    for key, value in given.items():
        if key not in like:
            raise UserError(f'{path}: this version has no key {key!r}{near(key, like)}')
        _check_kind(path, key, value, like[key])
    try:
        config.update_from_flattened_dict(given)
    except TypeError as error:
        raise UserError(f'{path}: {one_line(error)}') from error
    config.lock()
    return config


def _check_kind(path: Path, key: str, value: Any, default: Any) -> None:
    kind = type(default)
    if default is not None and not isinstance(value, int if kind is float and not isinstance(value, float) else kind):
        raise UserError(f'{path}: {key} must be like {default!r}, not {value!r}')


def near(key: str, keys: Iterable[str]) -> str:
    """`' - did you mean ..?'`, where one of the `keys` is like `key`."""
    found = difflib.get_close_matches(key, list(keys), n=1)
    return f' - did you mean {found[0]!r}?' if found else '; configs/common.py lists those there are'


def config_file(text: str) -> tuple[Path, list[str]]:
    """The file that `--config=text` names, and the argument behind its colon, if there is one."""
    name, *argument = text.split(':', 1) if '://' not in text else [text]
    file = path('config', name)
    if not file.is_file():
        there = sorted(str(file) for file in Path('configs').rglob('*.py') if file.stem not in ('common', '__init__'))
        raise UserError(f'no config file {name!r} - choices: {", ".join(there)}')
    return file, argument


def call(text: str, name: str) -> Any:
    """Result of the function `name` of the config file `--config=text`, which takes the argument in `text` if it
    has a parameter."""
    file, argument = config_file(text)
    function = load(file).get(name)
    if not callable(function):
        raise UserError(f'{file} defines no {name}()')
    takes = inspect.signature(function).parameters.values()
    if argument and not takes and name == 'get_config':
        raise UserError(f'get_config() of {file} takes no argument such as {argument[0]!r}')
    if not argument and any(each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD for each in takes):
        raise UserError(f'{name}() of {file} needs an argument - write --config={file}:<argument>')
    try:
        found = function(*argument) if takes else function()
        return list(found) if inspect.isgenerator(found) else found
    except Exception as error:  # whatever its author got wrong
        raise UserError(f'{name}() of {file} fails: {spec.failure(error)}') from error


def load(path: Path) -> dict[str, Any]:
    """What a config file defines."""
    try:
        return runpy.run_path(str(path))
    except Exception as error:  # whatever its author got wrong
        raise UserError(f'{path} does not run: {spec.failure(error)}') from error


def path(flag: str, text: str | None) -> Path:
    """The path that a flag gives, `~` expanded."""
    if re.match(r'\w+://', required(flag, text)):
        raise UserError(f'--{flag}={text} is no path of a file system - copy or mount it, and give a local path')
    try:
        return Path(text or '.').expanduser()
    except RuntimeError as error:
        raise UserError(f'--{flag}={text}: {one_line(error)}') from error


def one_line(error: Any) -> str:
    """A message without its line breaks."""
    return ' '.join(str(error).split())


def required(name: str, value: Any) -> Any:
    """`value`, unless the flag was not given."""
    if value is None:
        raise UserError(f'--{name}=... is missing')
    return value
