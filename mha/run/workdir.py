"""Directory of a run: which run it belongs to, and its small files. Nothing that exists is lost or overwritten. If
several processes train, only the first writes."""

import datetime
import hashlib
import io
import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from mha.machine import files, parallel
from mha.run import fields, versions
from mha.spec import UserError, compact, flatten, parse
from mha.training import optim

try:
    import fcntl
except ImportError:  # Windows: directories are not locked there
    fcntl = None

LONGEST_NAME = 180
"""Longest file name in bytes, without its ending. File systems allow 255 in total."""
LARGEST_PATCH = 4 * 2**20
"""Largest size in bytes of `changes.patch`."""
_held: list[io.IOBase] = []
"""Lock files that this process keeps open until it ends."""


def claim(workdir: Path, config: Mapping[str, Any], init_from: str | None = None) -> None:
    """Makes `workdir` the directory of the run that `config` describes; that run may have begun before. A new run
    records `init_from`, the run whose weights it starts with. Raises `UserError` if the directory holds another run or
    other files."""
    if (workdir / 'config.json').exists() and not _only_begun(workdir):
        check_same(workdir, config)
        check_start(workdir, init_from)
        return
    if {'[', ']'} & {*str(workdir.absolute())}:  # orbax reads brackets as a pattern and loses files
        raise UserError(f'checkpoints cannot be kept below a path with [ or ], {workdir} - choose another --workdir')
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not _only_begun(workdir):
            raise UserError(f'{workdir} is not empty and holds no run - choose another --workdir')
        here, patch = environment()
        given = {'init_from': str(_absolute(init_from))} if init_from else {}
        write_json(workdir / 'environment.json', here | given)
        if patch:
            _replace(workdir / 'changes.patch', patch)
        write_json(workdir / 'config.json', config)  # last: with it, there is a run
    except OSError as error:
        raise UserError(f'cannot make the directory {workdir}: {error.strerror} - choose another --workdir') from error


def _only_begun(workdir: Path) -> bool:
    """Whether all that a directory holds is what a start leaves that was killed; also true if it is empty."""
    begun = {'lock', 'environment.json', 'changes.patch'}
    return all(
        path.name in begun or path.suffix == '.tmp' or (path.name == 'config.json' and not path.stat().st_size)
        for path in workdir.iterdir()
    )


def clean(workdir: Path) -> None:
    """Removes files that killed processes left half-written, from a directory that this process has locked."""
    for path in workdir.glob('*.tmp'):
        path.unlink()


def disclaim(workdir: Path) -> None:
    """Gives up the directory of a run without a checkpoint, so that another config may begin there."""
    if not (workdir / 'checkpoints').exists():
        for name in 'config.json', 'summary.json', 'tokenizer.json':
            (workdir / name).unlink(missing_ok=True)


def check_same(workdir: Path, config: Mapping[str, Any]) -> None:
    """Raises `UserError` if `workdir` holds another run than the one that `config` describes. The config may ask for
    more `train.steps`, unless the learning rate or `train.final_steps` depends on their number."""
    if not (workdir / 'config.json').exists():
        return
    there, here = (flatten(each) for each in (load_config(workdir), json.loads(json.dumps(config, default=list))))
    differ = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    if differ == ['train.steps'] and there['train.steps'] < here['train.steps']:
        *_, schedule = parse(here['optimizer.schedule'])
        if schedule.name in optim.ENDLESS and not here['train.final_steps']:
            return
        what = 'optimizer.schedule' if schedule.name not in optim.ENDLESS else 'train.final_steps'
        raise UserError(
            f'{workdir} was trained for {there["train.steps"]} steps and cannot go on to {here["train.steps"]}: its '
            f'{what}={here[what]!r} depends on their number - choose another --workdir, and --init_from={workdir}'
        )
    if differ:
        key = differ[0]
        more = f' ({len(differ) - 1} more differ)' if len(differ) > 1 else ''
        raise UserError(
            f'{workdir} holds another run: {key} is {there.get(key)!r} there and {here.get(key)!r} here{more} '
            '- choose another --workdir, or give the same config to resume'
        )


def started_from(workdir: Path) -> str | None:
    """Directory of the run whose weights the run in `workdir` started with; None if it started with fresh weights."""
    here = fields.read_json(workdir / 'environment.json', fields.ENVIRONMENT)
    return here.get('init_from') or summary(workdir).get('init_from')  # the place of earlier versions


def check_start(workdir: Path, init_from: str | None) -> None:
    """Raises `UserError` if `init_from` is given and the run in `workdir` started with other weights."""
    there = started_from(workdir)
    if init_from and (there is None or _absolute(there) != _absolute(init_from)):
        began = f'the weights of {there}' if there else 'fresh weights'
        raise UserError(
            f'{workdir} started with {began}, not with those of {init_from} - choose another --workdir, or leave out '
            '--init_from to resume'
        )


def _absolute(path: str) -> Path:
    return Path(path).expanduser().resolve()


def extend(workdir: Path, config: Mapping[str, Any]) -> None:
    """Records a larger number of `train.steps` in a run that is locked by this process. The results at the earlier
    number of steps are kept under another name."""
    steps = load_config(workdir)['train']['steps']
    if steps == config['train']['steps']:
        return
    if (workdir / 'extrapolation.csv').exists():
        os.replace(workdir / 'extrapolation.csv', workdir / f'extrapolation_after_{steps}_steps.csv')
    if (workdir / 'summary.json').exists():
        write_json(workdir / 'summary.json', summary(workdir) | {'status': 'running'})
    write_json(workdir / 'config.json', config)


def check_data(workdir: Path, sha256: str) -> None:
    """Raises `UserError` if the run in `workdir` was trained on data with another checksum."""
    there = summary(workdir).get('data_sha256', sha256)
    if there != sha256:
        raise UserError(f'{workdir} was trained on other text (sha256 {there[:8]}.. there, {sha256[:8]}.. here)')


def check_subwords(workdir: Path, subwords: str) -> None:
    """Raises `UserError` if the run in `workdir` was trained on other subwords than those that this JSON describes."""
    path = workdir / 'tokenizer.json'
    if path.exists() and files.read_text(path) != subwords:
        raise UserError(f'{workdir} was trained on other subwords: those of {path} are not those of this text')


def keep_subwords(workdir: Path, subwords: str) -> None:
    """Records the subwords of a run, if it has any."""
    check_subwords(workdir, subwords)
    if subwords:
        _replace(workdir / 'tokenizer.json', subwords)


def load_config(workdir: Path) -> dict[str, Any]:
    """Config of the run in `workdir`, in today's keys."""
    path = workdir / 'config.json'
    if not path.exists():
        raise UserError(f'no run in {workdir} (it has no config.json) - give the --workdir that train.py was given')
    return versions.read_config(path)


def summary(workdir: Path) -> dict[str, Any]:
    """Content of the run's summary.json; an empty dict before it is written."""
    return fields.read_json(workdir / 'summary.json', fields.SUMMARY)


def status(workdir: Path) -> str:
    """State of the run in `workdir`: 'not started', 'running', 'diverged', or 'finished' after its evaluation."""
    return summary(workdir).get('status', 'running') if (workdir / 'summary.json').exists() else 'not started'


def finished(workdir: Path) -> bool:
    """Whether the run in `workdir` has trained and been evaluated."""
    return status(workdir) == 'finished' and (workdir / 'extrapolation.csv').exists()


def check_writable(workdir: Path) -> None:
    """Raises `UserError` if no file can be written to `workdir`. Called before the work whose results would be lost."""
    try:
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise UserError(f'cannot write to {workdir}: {error.strerror}') from error


def hold(workdir: Path) -> None:
    """Locks `workdir` until this process ends. Raises `UserError` if it is not writable or another process has locked
    it. A crash leaves no lock behind, because the operating system releases it."""
    check_writable(workdir)
    file = open(workdir / 'lock', 'a+')  # noqa: SIM115 - open for the whole run
    if not _lock(file):
        raise UserError(f'{_in_use(workdir, file)} - wait for it, or stop it')
    file.truncate(0)
    file.write(f'{os.getpid()} {platform.node()}\n')
    file.flush()
    _held.append(file)


def held(workdir: Path) -> bool:
    """Whether a process has locked `workdir`."""
    if not (workdir / 'lock').exists():
        return False
    with open(workdir / 'lock') as file:
        return not _lock(file)


def _lock(file: io.TextIOBase) -> bool:
    """Whether this process now has the lock on `file`. Some network file systems have no locks: there, only processes
    of the same machine exclude each other."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        pid, host = _owner(file)
        here = host == platform.node() and pid.isdecimal() and int(pid) != os.getpid()
        return not (here and _runs(int(pid)))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _owner(file: io.TextIOBase) -> tuple[str, str]:
    """Process and machine that a lock names, as text; '' if unknown."""
    file.seek(0)
    pid, _, host = file.read().strip().partition(' ')
    return pid, host


def _in_use(workdir: Path, file: io.TextIOBase) -> str:
    pid, host = _owner(file)
    return f'{workdir} is in use by process {pid or "of another program"}{f" on {host}" if host else ""}'


def environment() -> tuple[dict[str, Any], str]:
    """Record of where a run was started: versions, devices, commit, command. And the uncommitted changes, as a
    patch."""
    packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'ml-collections', 'tensorflow-datasets', 'numpy')
    commit, patch = _commit(Path(__file__).parents[2])
    large = len(patch.encode()) > LARGEST_PATCH
    return {
        'started': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'command': shlex.join([Path(sys.executable).name, *sys.argv]),
        'commit': commit,
        'changed': None if commit is None else 'too much to keep' if large else bool(patch),
        'python': platform.python_version(),
        'platform': platform.platform(),
        'devices': [device.device_kind for device in jax.devices()],
        'cores': parallel.cores(),
        'matmul_precision': jax.config.jax_default_matmul_precision,  # pyright: ignore[reportAttributeAccessIssue]
        'versions': {name: metadata.version(name) for name in packages},
    }, '' if large else patch


def _commit(root: Path) -> tuple[str | None, str]:
    """Commit that is checked out at `root`, or None; and the uncommitted changes as a patch, new Python files
    included."""

    def git(*arguments: str) -> str:
        done = subprocess.run(['git', *arguments], capture_output=True, text=True, cwd=root, errors='replace')
        return done.stdout

    try:
        if Path(git('rev-parse', '--show-toplevel').strip() or '/nowhere').resolve() != root.resolve():
            return None, ''  # an installed package, perhaps inside another repository
        new = git('ls-files', '--others', '--exclude-standard', '-z', '--', '*.py').split('\0')
        patch = git('diff', 'HEAD', '--binary')
        patch += ''.join(git('diff', '--no-index', '--', os.devnull, name) for name in new if name)
        return git('describe', '--always', '--dirty', '--abbrev=40').strip() or None, patch
    except OSError:  # no git
        return None, ''


def file_name(text: str) -> str:
    """`text` as a file name, with `_` for unsuitable characters: `'one(a=4)|two'` -> `'one_a=4_two'`. A long name is
    shortened and ends in a hash."""
    name = re.sub(r'[^\w.,=-]+', '_', text).strip('_')
    return name if len(name.encode()) <= LONGEST_NAME else hashed(text)


def hashed(text: str, longest: int = LONGEST_NAME) -> str:
    """File name that no other text has: the beginning of `text` and a hash of all of it, at most `longest` bytes."""
    start = re.sub(r'[^\w.,=-]+', '_', text).strip('_').encode()[: longest - 9].decode(errors='ignore')
    return f'{start.rstrip("_")}-{hashlib.sha256(text.encode()).hexdigest()[:8]}'


def evaluation_name(lengths: Sequence[int], examples: int, task: str | None = None, position: str | None = None) -> str:
    """File name of a later evaluation, such as `'evaluation_40_80_512-examples.csv'`. The `task` and `position` follow
    if they differ from those of training. Different evaluations have different names."""
    listed = compact(lengths)
    named = listed.replace(',', '_')
    if len(named) > 80:
        named = f'{len(lengths)}-lengths-to-{lengths[-1]}-{hashlib.sha256(listed.encode()).hexdigest()[:8]}'
    name, under = f'evaluation_{named}_{examples}-examples', ''
    for text in (task, position):
        if text:
            # '_' may stand for brackets, bars and quotes of a spec; for more, two specs could get the same name
            within = re.findall(r'\'[^\']*\'|"[^"]*"', text)
            plain = all(re.fullmatch(r'[\w.,=-]*', quoted[1:-1]) for quoted in within)
            under += f'_{file_name(text) if plain else hashed(text)}'
    if len((name + under).encode()) > LONGEST_NAME:
        under = f'_{hashed(f"{task or position} {position}", LONGEST_NAME - len(name) - 1)}'
    return f'{name}{under}.csv'


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file. A crash leaves either the old file or the new one."""
    _replace(path, json.dumps(value, indent=2, default=list) + '\n')


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the rows of a range evaluation as csv. A crash leaves either the old file or the new one."""
    _replace(path, files.csv_text(rows))


def read_rows(path: Path) -> list[dict[str, float | int]]:
    """Rows of a range evaluation; an empty list if the file does not exist."""
    rows = fields.read_table(path, fields.RESULTS) if path.exists() else []
    return [{name: math.nan if value is None else value for name, value in row.items()} for row in rows]


def _replace(path: Path, text: str) -> None:
    if parallel.first():
        files.write(path, text)
