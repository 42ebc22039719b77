"""A run's directory: whose it is, and the small files in it. Nothing that is there already is lost or overwritten. Of
several processes the first alone writes."""

import csv
import datetime
import hashlib
import io
import json
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

from mha.machine import parallel
from mha.run import versions
from mha.spec import UserError, compact, flatten, parse
from mha.training import optim


def claim(workdir: Path, config: Mapping[str, Any]) -> None:
    """Makes `workdir` the directory of the run that `config` describes, new or begun before. Raises `UserError` if it
    holds another run or something else."""
    if (workdir / 'config.json').exists():
        check_same(workdir, config)
        _extend(workdir, config)
        return
    if {'[', ']'} & {*str(workdir.absolute())}:  # orbax takes them for a pattern, and its files end up incomplete
        raise UserError(f'checkpoints cannot be kept below a path with [ or ], {workdir} - choose another --workdir')
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if any(workdir.iterdir()):
            raise UserError(f'{workdir} is not empty and holds no run - choose another --workdir')
        write_json(workdir / 'config.json', config)
        write_json(workdir / 'environment.json', environment())
    except OSError as error:
        raise UserError(f'cannot make the directory {workdir}: {error.strerror} - choose another --workdir') from error


def check_same(workdir: Path, config: Mapping[str, Any]) -> None:
    """Raises `UserError` unless the run in `workdir`, if there is one, is the one that `config` describes, or its first
    steps: a run may go on beyond `train.steps` where its schedule does not depend on them."""
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


def _extend(workdir: Path, config: Mapping[str, Any]) -> None:
    """Lets a run go on to more steps; the evaluation that it ended with is kept under another name."""
    steps = load_config(workdir)['train']['steps']
    if steps == config['train']['steps'] or not parallel.first():
        return
    if (workdir / 'extrapolation.csv').exists():
        os.replace(workdir / 'extrapolation.csv', workdir / f'extrapolation_after_{steps}_steps.csv')
    if (workdir / 'summary.json').exists():
        write_json(workdir / 'summary.json', _read_json(workdir / 'summary.json') | {'status': 'running'})
    write_json(workdir / 'config.json', config)


def check_data(workdir: Path, sha256: str) -> None:
    """Raises `UserError` if the run in `workdir` has read other data than these."""
    there = summary(workdir).get('data_sha256', sha256)
    if there != sha256:
        raise UserError(f'{workdir} was trained on other text (sha256 {there[:8]}.. there, {sha256[:8]}.. here)')


def load_config(workdir: Path) -> dict[str, Any]:
    """The config of the run in `workdir`, in today's keys."""
    path = workdir / 'config.json'
    if not path.exists():
        raise UserError(f'no run in {workdir} (it has no config.json) - give the --workdir that train.py was given')
    return versions.current(_read_json(path))


def summary(workdir: Path) -> dict[str, Any]:
    """The run's summary.json; empty before it has one."""
    path = workdir / 'summary.json'
    return _read_json(path) if path.exists() else {}


def status(workdir: Path) -> str:
    """How far the run in `workdir` is: 'not started', 'running', 'diverged', or 'finished' once it is evaluated."""
    return summary(workdir).get('status', 'running') if (workdir / 'summary.json').exists() else 'not started'


def finished(workdir: Path) -> bool:
    """Whether the run in `workdir` has trained and been evaluated."""
    return status(workdir) == 'finished' and (workdir / 'extrapolation.csv').exists()


def check_writable(workdir: Path) -> None:
    """Raises `UserError` if no file can be written to `workdir`: before the work whose results would be lost."""
    try:
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise UserError(f'cannot write to {workdir}: {error.strerror}') from error


def environment() -> dict[str, Any]:
    """What a run ran on: versions, device, commit, command."""
    packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'ml-collections', 'tensorflow-datasets', 'numpy')
    git = subprocess.run(
        ['git', 'describe', '--always', '--dirty', '--abbrev=40'],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    return {
        'started': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'command': shlex.join([Path(sys.executable).name, *sys.argv]),
        'commit': git.stdout.strip() or None,
        'python': platform.python_version(),
        'platform': platform.platform(),
        'devices': [device.device_kind for device in jax.devices()],
        'cores': parallel.cores(),
        'matmul_precision': jax.config.jax_default_matmul_precision,  # pyright: ignore[reportAttributeAccessIssue]
        'versions': {name: metadata.version(name) for name in packages},
    }


def file_name(text: str) -> str:
    """`text` with what file names do not bear replaced: `'one(a=4)|two'` -> `'one_a=4_two'`."""
    return re.sub(r'[^\w.,=-]+', '_', text).strip('_')


def evaluation_name(lengths: Sequence[int], examples: int, task: str | None = None, position: str | None = None) -> str:
    """File name of a later evaluation: `evaluation_40_80_512-examples.csv`, then the task and the position scheme where
    they are not those of the run. Names that would be too long or ambiguous are told apart by a digest."""
    numbers = compact(lengths).replace(',', '_')
    under = ''.join(f'_{file_name(text)}' for text in (task, position) if text)
    plain = [re.sub(r"[()'\" =|,.]", '', text) for text in (task, position) if text]
    exact = all(re.fullmatch(r'[\w-]*', text) for text in plain)
    if len(numbers) > 80:
        numbers, exact = f'{len(lengths)}-lengths-to-{lengths[-1]}', False
    if len(under) > 120:
        under, exact = under[:120], False
    if not exact:
        under += f'_{digest(compact(lengths), task, position)}'
    return f'evaluation_{numbers}_{examples}-examples{under}.csv'


def digest(*parts: Any) -> str:
    """Eight characters that tell these parts from others."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def write_json(path: Path, value: Any) -> None:
    """Writes the file whole or not at all."""
    _replace(path, json.dumps(value, indent=2, default=list) + '\n')


def write_rows(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes a range evaluation as csv, whole or not at all."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    _replace(path, file.getvalue())


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a range evaluation; none where it is not written yet."""
    if not path.exists():
        return []
    try:
        with path.open(newline='') as file:
            return [{name: _number(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f'cannot read {path}: {error}') from error


def _number(text: str) -> float | int:
    return int(text) if text.isdecimal() else float(text or 'nan')


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f'cannot read {path}: {error}') from error
    if not isinstance(content, dict):
        raise UserError(f'cannot read {path}: it must hold one JSON object')
    return content


def _replace(path: Path, text: str) -> None:
    if not parallel.first():
        return
    temporary = path.with_suffix('.tmp')
    temporary.write_text(text)
    os.replace(temporary, path)
