"""How the scripts meet the command line: flags in, mistakes out as one line with exit code 2."""

import os
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags

from mha.spec import UserError

SMALLER = 'choose smaller batches or shorter lengths; to train, more train.microbatches or model.remat=True'
EXPECTED = {'int()': 'a whole number', 'float': 'a number', 'boolean': 'true or false'}


def run(main: Callable[..., None]) -> None:
    """Parses the flags and calls `main`, with the other arguments where it has `takes_arguments`. A mistake of the
    user, or too little memory, ends the program with one line on stderr and exit code 2; an interrupt ends it with 130;
    anything else is a defect and keeps its traceback."""
    app.define_help_flags()
    try:
        arguments = _parse_flags()
        if arguments and not getattr(main, 'takes_arguments', False):
            raise UserError(f'unexpected argument {arguments[0]!r} - flags are written --name=value')
        main(*arguments)
        sys.stdout.flush()
    except UserError as error:
        print(f'{Path(sys.argv[0]).name}: {error}', file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:  # jax's own are such; reports are made without jax
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        print(f'{Path(sys.argv[0]).name}: out of memory ({one_line(error)[:200]}) - {SMALLER}', file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print(f'\n{Path(sys.argv[0]).name}: interrupted - the same command resumes', file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(130)  # at once: `sys.exit` waits for threads, which may be compiling for a minute


def _parse_flags() -> list[str]:
    while '--config' in sys.argv[:-1]:  # `--config file` is `--config=file`; everything below reads the latter
        at = sys.argv.index('--config')
        sys.argv[at : at + 2] = [f'--config={sys.argv[at + 1]}']
    for argument in sys.argv[1:]:
        if match := re.match(r'--?config=([^:]*)', argument):
            _check_config_file(Path(match[1]))
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


def _check_config_file(path: Path) -> None:
    """A config that is not there or does not run, before absl meets it."""
    if not path.is_file():
        there = sorted(str(file) for file in Path('configs').glob('*.py') if file.stem not in ('common', '__init__'))
        raise UserError(f'no config file {str(path)!r} - choices: {", ".join(there)}')
    if not callable(load(path).get('get_config')):
        raise UserError(f'{path} defines no get_config()')


def load(path: Path) -> dict[str, Any]:
    """What a config file defines."""
    try:
        return runpy.run_path(str(path))
    except Exception as error:  # whatever its author got wrong
        raise UserError(f'{path} does not run: {type(error).__name__}: {one_line(error)}') from error


def one_line(error: Any) -> str:
    """A message without its line breaks."""
    return ' '.join(str(error).split())


def directory(name: str, value: str | None) -> Path:
    """The path of a flag, `~` expanded; addresses of other storage are refused."""
    text = required(name, value)
    if re.match(r'\w+://', text):
        raise UserError(f'--{name}={text}: runs are kept in directories of this machine - name one')
    return Path(text).expanduser()


def required(name: str, value: Any) -> Any:
    """`value`, unless the flag was not given."""
    if value is None:
        raise UserError(f'--{name}=... is missing')
    return value
