"""How the scripts end; what they refuse is in tests/test_scripts.py."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from configs import common, quickstart
from mha import cli
from mha.machine import signals
from mha.spec import UserError

ROOT = Path(__file__).parent.parent


def test_a_device_without_enough_memory_ends_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['train.py'])
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: jnp.zeros(2**52).block_until_ready())
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith('train.py: out of memory')
    assert 'choose smaller batches' in said
    assert said.count('\n') == 1


def test_a_full_disk_ends_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['train.py'])

    def main():
        raise OSError(errno.ENOSPC, 'No space left on device', 'runs/a/metrics.jsonl')

    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == 2
    said = (
        'train.py: cannot write runs/a/metrics.jsonl: No space left on device - make room for it, then run it again\n'
    )
    assert capsys.readouterr().err == said


def test_other_failures_of_a_program_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['train.py'])

    def main():
        raise jax.errors.JaxRuntimeError('INTERNAL: a defect')

    with pytest.raises(jax.errors.JaxRuntimeError):
        cli.run(main)


BUSY = """
import threading, time
from mha import cli
def main():
    threading.Thread(target=time.sleep, args=(600,)).start()
    raise KeyboardInterrupt
cli.run(main)
"""


def test_an_interrupt_waits_for_no_thread():
    done = subprocess.run([sys.executable, '-c', BUSY], capture_output=True, text=True, timeout=120)
    assert done.returncode == 130
    assert 'interrupted - the same command resumes' in done.stderr


SWALLOWING = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except BaseException:
    pass
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ('script', 'imported'), [('train', 'jax'), ('sweep', 'jax'), ('eval', 'jax'), ('compare', 'numpy')]
)
def test_an_interrupt_of_the_imports_is_one_line(script, imported, number, tmp_path):
    (tmp_path / f'{imported}.py').write_text(SWALLOWING.replace('SIGINT', number.name))  # in place of the package
    environ = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    done = subprocess.run(
        [sys.executable, f'{script}.py'],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr == f'\n{script}.py: interrupted - the same command resumes\n'


WORKING = """
import hashlib, os, signal, sys, time
from mha import cli
from mha.machine import signals
signals.GRACE = 2
def main(act):
    with signals.delayed(interrupts=act == 'raise') as watch:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            if act == 'twice':
                time.sleep(1)
                os.kill(os.getpid(), signal.SIGINT)
            if act != 'keep':
                hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)  # one operation, which no handler enters
            time.sleep(0.2)
        except KeyboardInterrupt:
            print('caught')
        if act == 'keep':
            cli.end(watch.received, 'step 4 is saved')
main.takes_arguments = True
cli.run(main)
"""


@pytest.mark.parametrize(('act', 'said'), [('wait', ''), ('twice', ''), ('keep', ', step 4 is saved'), ('raise', '')])
def test_work_may_be_kept_after_a_signal(act, said):
    """For a while, in which a second signal ends it, though Python cannot call a handler."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, '-c', WORKING, act], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert done.stderr == f'\n-c: interrupted{said} - the same command resumes\n'
    assert done.stdout == 'caught\n' * (act == 'raise')
    assert time.monotonic() - began < 30


def test_no_handler_stays(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['train.py'])
    before = [signal.getsignal(each) for each in signals.SIGNALS]
    seen = []
    cli.run(lambda: seen.extend(signal.getsignal(each) for each in signals.SIGNALS))
    assert [signal.getsignal(each) for each in signals.SIGNALS] == before
    assert not {*seen} & {*before} - {signal.SIG_IGN}
    assert signal.set_wakeup_fd(-1) == -1
    with signals.delayed() as watch:  # outside of scripts, it does nothing
        assert watch.received == 0
    assert [signal.getsignal(each) for each in signals.SIGNALS] == before


def test_a_reader_that_has_gone_ends_it_quietly():
    code = "from mha import cli\ncli.run(lambda: print('line\\n' * 100_000))"
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b''
    assert process.wait(60) == 141


def test_paths_expand_and_stay_in_the_file_system(monkeypatch):
    monkeypatch.setenv('HOME', '/home/somebody')
    assert cli.path('workdir', '~/x') == Path('/home/somebody/x')
    assert cli.path('workdir', 'runs/a~b') == Path('runs/a~b')
    for text, words in {
        'gs://bucket/x': '--workdir=gs://bucket/x is no path of a file system',
        'file:///x': 'no path of a file system',
        '~nobody-of-this-name/x': '--workdir=~nobody-of-this-name/x: Could not determine home directory',
        'x' * 300: 'x: File name too long',
        'x/' * 3000: 'File name too long',
        None: '--workdir=... is missing',
    }.items():
        with pytest.raises(UserError, match=words):
            cli.path('workdir', text)
    with pytest.raises(UserError, match='gs://bucket is no path of a file system'):
        cli.paths(['runs', 'gs://bucket'])


def read(path):
    return cli.read_config(str(path), common.get_config)


def test_a_saved_config_is_a_config(tmp_path):
    """Of an older version, too: keys that it lacks take their defaults."""
    config, path = quickstart.get_config(), tmp_path / 'config.json'
    config.population.seed = (0, 1)
    path.write_text(json.dumps(config.to_dict()))
    assert read(path).to_dict() == config.to_dict()
    saved = config.to_dict()
    del saved['train']['curriculum'], saved['mesh']
    path.write_text(json.dumps(saved))
    assert read(path).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('{', 'cannot read'),
        ('[1]', 'one JSON object'),
        ('{"model": {"headz": 2}}', "no key 'model.headz' - did you mean 'model.heads'"),
        ('{"task": 5}', "task must be like 'bucket_sort', not 5"),
        ('{"model": {"heads": "four"}}', "model.heads must be like 8, not 'four'"),
        ('{"model": {"head_dim": "four"}}', "model.head_dim cannot be 'four'"),
        ('{"population": {"seed": 1}}', 'population.seed cannot be 1'),
        (f'{{"model": {{"norm_eps": {10**400}}}}}', 'model.norm_eps cannot be 1000'),
        (f'{{"seed": {"9" * 5000}}}', 'cannot read'),
        ('{"model":' * 10_000, 'cannot read'),
    ],
)
def test_a_saved_config_that_is_none(text, words, tmp_path):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(UserError) as error:
        read(tmp_path / 'config.json')
    assert words in str(error.value)
    assert 'config.json' in str(error.value)
    assert len(str(error.value).splitlines()) == 1


START = 'from configs import common\nfrom ml_collections import ConfigDict\n\n'
START += 'def get_config():\n    c = common.get_config()\n'


@pytest.mark.parametrize(
    ('source', 'words'),
    [
        (f'{START}    c.a, c.b = 0.5', 'fails: TypeError in mine.py, line 6: cannot unpack'),
        (f"{START}    c.model.heads = 'four'", 'fails: TypeError in mine.py, line 6:'),
        (f'{START}    c.model.heads = 4', 'returns nothing, not a config - begin it with config = common.get_config()'),
        (f'{START}    return c.to_dict()', 'returns a dict, not a config'),
        (f'{START}    return ConfigDict()', 'returns a config without '),
        (f'{START}    c = c.to_dict()\n    c["model"]["heads"] = "four"\n    return ConfigDict(c)', 'like 8, not'),
        (
            f'{START}    c.train.step = 5\n    return c',
            "'train.step', which no setting is called - did you mean 'train.steps'",
        ),
        (f'{START}    c.sede = 5\n    return c', "sets 'sede', which no setting is called - did you mean 'seed'"),
        ('import missing_module', 'does not run: ModuleNotFoundError in mine.py, line 1'),
        ('x = (', 'does not run: SyntaxError in mine.py, line 1'),
        ('get_config = 3', 'defines no get_config()'),
        ('def get_config(size):\n    return size', 'needs an argument - write --config='),
    ],
)
def test_mistakes_in_a_config_are_told_with_their_line(source, words, tmp_path):
    (tmp_path / 'mine.py').write_text(source)
    with pytest.raises(UserError) as error:
        read(tmp_path / 'mine.py')
    assert words in str(error.value)
    assert 'mine.py' in str(error.value)
    assert len(str(error.value)) < 300
    assert len(str(error.value).splitlines()) == 1


def test_a_config_file_that_is_not_there():
    for name in 'none.py', '', 'a\x00b', 'configs':
        with pytest.raises(UserError, match=r'no config file .* - choices: configs/bert\.py'):
            read(name)


def test_a_sweep_ends(tmp_path):
    (tmp_path / 'mine.py').write_text("def sweep():\n    while True:\n        yield {'seed': 0}\n")
    with pytest.raises(UserError, match='yields more than 100,000 cells'):
        cli.call(f'{tmp_path}/mine.py', 'sweep')


def test_a_config_takes_an_argument(tmp_path):
    (tmp_path / 'mine.py').write_text(
        'from configs import common\n'
        "def get_config(task='parity'):\n    c = common.get_config()\n    c.task = task\n    return c\n"
        "def sweep(task):\n    yield {'task': task}\n"
    )
    assert read(tmp_path / 'mine.py').task == 'parity'
    assert read(f'{tmp_path}/mine.py:reverse_string').task == 'reverse_string'
    assert cli.call(f'{tmp_path}/mine.py:a:b', 'sweep') == [{'task': 'a:b'}]
    with pytest.raises(UserError, match="takes no argument such as 'x'"):
        read('configs/quickstart.py:x')
    with pytest.raises(UserError, match=r'sweep\(\) of .* needs an argument'):
        cli.call(f'{tmp_path}/mine.py', 'sweep')
