"""Command line of the scripts: parsing of flags and configs, and mistakes reported in one line with exit code 2."""

import contextlib
import difflib
import inspect
import itertools
import os
import re
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from absl import app, flags

from mha import spec
from mha.machine import environment, files, signals
from mha.run import versions
from mha.spec import UserError, escaped

SMALLER = 'choose smaller batches or shorter lengths; to train, more train.microbatches or model.remat=True'
MOST_CELLS = 100_000
"""Largest number of cells of a sweep."""
EXPECTED = {'int()': 'a whole number', 'float': 'a number', 'boolean': 'true or false'}


def run(main: Callable[..., None], defaults: Callable[[], Any] | None = None, optional: Sequence[str] = ()) -> None:
    """Parses the flags and calls `main`, with the remaining arguments if `main.takes_arguments`. `defaults` returns the
    default config of a script with a `--config`. Flags that are `optional` may have no value, which makes it ''. Exit
    codes: 2 for a mistake of the user, too little memory or a full disk, in one line on stderr; 130 after SIGINT; 143
    after SIGTERM; 141 if the reader of the output has closed the pipe, as `| head` does. Other errors are defects of
    the program and keep their traceback."""
    if sys.excepthook is _refuse_environment:
        sys.excepthook = sys.__excepthook__
    app.define_help_flags()
    with signals.Watch(end) as watch:
        try:
            _run(main, defaults, optional)
        except KeyboardInterrupt:
            end(watch.received or signal.SIGINT)


def _run(main: Callable[..., None], defaults: Callable[[], Any] | None, optional: Sequence[str]) -> None:
    try:
        sys.argv[1:] = [
            f'{each}=' if each.lstrip('-') in optional and each[0] == '-' else each for each in sys.argv[1:]
        ]
        arguments = _parse_flags(defaults)
        if arguments and not getattr(main, 'takes_arguments', False):
            raise UserError(f'unexpected argument {arguments[0]!r} - flags are written --name=value')
        environment.check()
        cast(Any, sys.stdout).reconfigure(errors='backslashreplace')  # whatever the encoding, nothing ends a run
        out, err = (cast(Any, Shown(stream)) for stream in (sys.stdout, sys.stderr))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(*arguments)
            sys.stdout.flush()
    except BrokenPipeError:
        for stream in sys.stdout, sys.stderr:  # output that is still buffered is discarded
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(141)
    except UserError as error:
        _refuse(str(error))
    except RuntimeError as error:  # the base class of jax's errors; reports do not import jax
        reason = one_line(error)
        if 'RESOURCE_EXHAUSTED' in reason:
            reason = f'out of memory ({reason[:200]}) - {SMALLER}'
        elif not reason.startswith('Unable to initialize backend'):
            raise
        _refuse(reason)
    except AssertionError as error:
        if _raised_in(error) != 'jax._src.xla_bridge':
            raise
        _refuse(
            f'JAX_PLATFORMS={os.environ.get("JAX_PLATFORMS", "")}: no such device here - unset it, or install its jax'
        )
    except OSError as error:
        if error.errno not in files.FULL:
            raise
        _refuse(f'cannot write {error.filename or "a file"}: {error.strerror} - make room for it, then run it again')


def _refuse(reason: str) -> None:
    print(f'{Path(sys.argv[0]).name}: {reason}', file=sys.stderr)
    sys.exit(2)


def _raised_in(error: BaseException) -> str:
    frames = list(traceback.walk_tb(error.__traceback__))
    return frames[-1][0].f_globals.get('__name__', '') if frames else ''


class Shown:
    """Stream for texts that may come from strangers, such as settings of a run: a terminal shows what it would obey
    otherwise."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> int:
        return self.stream.write(escaped(text, keep='\n\r\t'))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def end(number: int, kept: str = '') -> None:
    """Ends this process after a signal, with a line that says what it has `kept`."""
    what = f'interrupted, {kept}' if kept else 'interrupted'
    print(f'\n{Path(sys.argv[0]).name}: {what} - the same command resumes', file=sys.stderr, flush=True)
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # its reader has gone, or it is being written
        sys.stdout.flush()
    os._exit(128 + number)  # `sys.exit` would wait for threads, which may compile for a minute


def end_on_signals() -> None:
    """Lets signals end this process in one line before `run`, unless they are ignored."""
    for each in signals.SIGNALS:
        if signal.getsignal(each) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(each, lambda number, _: end(number))


def _refuse_environment(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Reports an import that failed because of an environment variable in one line."""
    if reason := environment.mistake(error):
        _refuse(reason)
    sys.__excepthook__(kind, error, trace)


if Path(sys.argv[0]).resolve() in Path(__file__).parents[1].glob('*.py'):
    # Scripts import this module first. In the imports that follow, some packages would swallow a KeyboardInterrupt.
    end_on_signals()
    sys.excepthook = _refuse_environment


def _parse_flags(defaults: Callable[[], Any] | None) -> list[str]:
    while '--config' in sys.argv[:-1]:  # everything below expects `--config=file`
        index = sys.argv.index('--config')
        sys.argv[index : index + 2] = [f'--config={sys.argv[index + 1]}']
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
            hint = "; arguments of a task go into its spec: --config.task='lm(...)'"
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
    """Config that `--config=text` names: `configs/x.py`, `configs/x.py:argument` for its `get_config(argument)`, or the
    `config.json` of a run. Raises `UserError` if a key is missing or has a value of another type than in
    `defaults()`."""
    path, like = config_file(text)[0], defaults()
    if path.suffix == '.json':
        return _saved_config(path, like)
    config = call(text, 'get_config')
    if not isinstance(config, type(like)):
        got = 'nothing' if config is None else f'a {type(config).__name__}'
        raise UserError(f'get_config() of {path} returns {got}, not a config - {_HOW}')
    given, known = spec.flatten(config.to_dict()), spec.flatten(like.to_dict())
    for key in sorted(given.keys() - known.keys()):
        raise UserError(f'get_config() of {path} sets {key!r}, which no setting is called{near(key, known)}')
    for key, default in known.items():
        if key not in given and not key.startswith('population.'):
            raise UserError(f'get_config() of {path} returns a config without {key!r} - {_HOW}')
        _check_kind(path, key, given.get(key), default)
    config.lock()
    return config


_HOW = 'begin it with config = common.get_config(), end it with return config'


def _saved_config(path: Path, config: Any) -> Any:
    """Config that a run has saved. Keys that were added in later versions have their defaults."""
    like = spec.flatten(config.to_dict())
    saved = spec.flatten(versions.current(files.read_json(path)))
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()}
    for key, value in given.items():
        if key not in like:
            raise UserError(f'{path}: this version has no key {key!r}{near(key, like)}')
        _check_kind(path, key, value, like[key])
    update(config, given, str(path))
    config.lock()
    return config


def update(config: Any, settings: Mapping[str, Any], what: str) -> None:
    """Changes settings of a config by their flat keys. Raises `UserError`, which begins with `what`, for a value of
    another type."""
    for key, value in settings.items():
        try:
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f'{what}: {key} cannot be {value!r}') from error


def _check_kind(path: Path, key: str, value: Any, default: Any) -> None:
    kind = type(default)
    if default is not None and not isinstance(value, int if kind is float and not isinstance(value, float) else kind):
        raise UserError(f'{path}: {key} must be like {default!r}, not {value!r}')


def near(key: str, keys: Iterable[str]) -> str:
    """`' - did you mean ..?'` with the key most similar to `key`, or a hint where all keys are listed."""
    found = difflib.get_close_matches(key, list(keys), n=1)
    return f' - did you mean {found[0]!r}?' if found else '; configs/common.py lists those there are'


def config_file(text: str) -> tuple[Path, list[str]]:
    """File that `--config=text` names, and a list with the argument after the colon, if there is one."""
    name, *argument = text.split(':', 1) if '://' not in text else [text]
    file = path('config', name)
    if not file.is_file():
        there = sorted(str(file) for file in Path('configs').rglob('*.py') if file.stem not in ('common', 'sweeps'))
        raise UserError(f'no config file {name!r} - choices: {", ".join(there)}')
    return file, argument


def call(text: str, name: str) -> Any:
    """Result of the function `name` in the config file that `--config=text` names. The argument in `text` is passed on
    if the function has a parameter."""
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
        result = function(*argument) if takes else function()
        result = list(itertools.islice(result, MOST_CELLS + 1)) if inspect.isgenerator(result) else result
    except (Exception, SystemExit) as error:  # any mistake in the user's file
        raise UserError(f'{name}() of {file} fails: {spec.failure(error)}') from error
    if isinstance(result, list) and len(result) > MOST_CELLS:
        raise UserError(f'{name}() of {file} yields more than {MOST_CELLS:,} cells')
    return result


def load(path: Path) -> dict[str, Any]:
    """Names that a config file defines, with their values."""
    try:
        return runpy.run_path(str(path))
    except (Exception, SystemExit) as error:  # any mistake in the user's file
        raise UserError(f'{path} does not run: {spec.failure(error)}') from error


def path(flag: str, text: str | None) -> Path:
    """Path that a flag gives; see `paths`."""
    return _path(f'--{flag}={text}', required(flag, text) or '.')


def paths(arguments: Iterable[str]) -> list[Path]:
    """Paths of arguments, with `~` expanded. Raises `UserError` for what cannot be a path, or may not be looked up."""
    return [_path(text, text) for text in arguments]


def _path(what: str, text: str) -> Path:
    if re.match(r'\w+://', text):
        raise UserError(f'{what} is no path of a file system - copy or mount it, and give a local path')
    try:
        found = Path(text).expanduser()
        found.exists()
    except (RuntimeError, OSError) as error:
        raise UserError(f'{what}: {getattr(error, "strerror", None) or one_line(error)}') from error
    return found


def one_line(error: Any) -> str:
    """Message without line breaks."""
    return ' '.join(str(error).split())


def required(name: str, value: Any) -> Any:
    """`value`; raises `UserError` if the flag was not given."""
    if value is None:
        raise UserError(f'--{name}=... is missing')
    return value
