"""A run's directory: one process at a time, names that file systems take, and what the code was."""

import csv
import errno
import json
import os
import platform
import subprocess
import sys

import pytest

from mha.machine import parallel
from mha.run import workdir
from mha.spec import UserError

HOLD = """
import sys
from pathlib import Path
from mha.run import workdir
workdir.hold(Path(sys.argv[1]))
print('holds', flush=True)
sys.stdin.read()
"""


def test_a_workdir_in_use_is_refused_with_its_process(tmp_path):
    command = [sys.executable, '-c', HOLD, str(tmp_path)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == 'holds\n'
    assert workdir.held(tmp_path)
    with pytest.raises(
        UserError, match=f'{tmp_path} is in use by process {other.pid} on {platform.node()} - wait for it, or stop it'
    ):
        workdir.hold(tmp_path)
    other.kill()  # a crash blocks nobody
    other.communicate()
    assert not workdir.held(tmp_path)
    workdir.hold(tmp_path)
    assert (tmp_path / 'lock').read_text() == f'{os.getpid()} {platform.node()}\n'
    assert not workdir.held(tmp_path / 'not there')


@pytest.mark.parametrize(('host', 'runs', 'held'), [('', True, True), ('', False, False), ('far', True, False)])
def test_a_file_system_without_locks(host, runs, held, tmp_path, monkeypatch):
    """There, the process that the file names has it if it runs on this machine; of others nothing is known."""

    def refuse(*_):
        raise OSError(errno.ENOTSUP, 'Operation not supported')

    monkeypatch.setattr(workdir.fcntl, 'flock', refuse)
    other = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)
    (tmp_path / 'lock').write_text(f'{other.pid} {host or platform.node()}\n')
    if not runs:
        other.communicate(b'\n')
    assert workdir.held(tmp_path) == held
    if held:
        with pytest.raises(UserError, match=f'in use by process {other.pid}'):
            workdir.hold(tmp_path)
    else:
        workdir.hold(tmp_path)
        assert (tmp_path / 'lock').read_text() == f'{os.getpid()} {platform.node()}\n'
    other.kill()


def test_a_run_keeps_whose_weights_it_starts_with(tmp_path, monkeypatch):
    """The record is made at the start, as an absolute path; other weights are refused later, and no file changes."""
    monkeypatch.chdir(tmp_path)
    config, (run, fresh, older) = {'seed': 0}, (tmp_path / name for name in ('run', 'fresh', 'older'))
    workdir.claim(run, config, 'runs/b')
    workdir.claim(fresh, config)
    workdir.claim(older, config)
    workdir.write_json(older / 'summary.json', {'init_from': 'runs/b'})  # the place of earlier versions
    monkeypatch.chdir('/')
    assert workdir.started_from(run) == str(tmp_path / 'runs' / 'b')
    assert workdir.started_from(fresh) is None
    assert workdir.started_from(older) == 'runs/b'
    workdir.claim(run, config)
    workdir.claim(run, config, str(tmp_path / 'runs' / 'b'))
    before = (run / 'environment.json').read_text()
    for place, words in (
        (run, f'started with the weights of {tmp_path}/runs/b, not'),
        (fresh, 'with fresh weights, not'),
    ):
        with pytest.raises(UserError, match=f'{words} with those of runs/c - choose another --workdir'):
            workdir.claim(place, config, 'runs/c')
    assert (run / 'environment.json').read_text() == before


def test_what_a_killed_start_left_is_no_other_run(tmp_path):
    """Nor is a file half-written. A run begins with its config.json, which is written last."""
    for name in 'lock', 'config.tmp', 'config.json', 'environment.json', 'changes.patch':
        (tmp_path / name).write_text('')
    workdir.claim(tmp_path, {'seed': 0}, 'runs/b')
    assert json.loads((tmp_path / 'config.json').read_text()) == {'seed': 0}
    assert workdir.started_from(tmp_path).endswith('runs/b')
    workdir.clean(tmp_path)
    assert not [*tmp_path.glob('*.tmp')]
    for name, content in (('notes.txt', ''), ('config.json', '{')):
        folder = tmp_path / f'other {name}'
        folder.mkdir()
        (folder / name).write_text(content)
        with pytest.raises(UserError):
            workdir.claim(folder, {'seed': 0})
        assert [path.name for path in folder.iterdir()] == [name]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    workdir.write_json(tmp_path / 'a.json', {'a': 1})

    def fail(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match=r'No space left on device: .*a\.json'):
        workdir.write_json(tmp_path / 'a.json', {'a': 2})
    assert [path.name for path in tmp_path.iterdir()] == ['a.json']
    assert json.loads((tmp_path / 'a.json').read_text()) == {'a': 1}


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        (((40, 80, 160), 512), 'evaluation_40_80_160_512-examples.csv'),
        ((tuple(range(50, 501, 50)), 8), 'evaluation_50-500:50_8-examples.csv'),
        (((4,), 8, None, 'rope(theta=50)'), 'evaluation_4_8-examples_rope_theta=50.csv'),
        (((4,), 8, "odds_first(order='released')"), 'evaluation_4_8-examples_odds_first_order=_released.csv'),
        (((3, 4), 8, 'copying', 'pi(scale=4)|rope'), 'evaluation_3_4_8-examples_copying_pi_scale=4_rope.csv'),
    ],
)
def test_names_of_evaluations(arguments, name):
    assert workdir.evaluation_name(*arguments) == name


def test_other_evaluations_have_other_names():
    uneven = [n * n for n in range(1, 33)]
    lists = [tuple(uneven), tuple(uneven[1:]), (2, *uneven[2:]), (3, *uneven[2:])]
    texts = ["text('a/b.txt')", "text('a_b.txt')", "text('a b.txt')", "text('a-b.txt')", 'text("a(b.txt")']
    long = ['|'.join(f'rope(theta={n}.5)' for n in range(first, 40)) for first in (0, 1)]
    names = [workdir.evaluation_name(lengths, 512) for lengths in lists]
    names += [workdir.evaluation_name((4,), 8, text) for text in texts]
    names += [workdir.evaluation_name((4,), 8, None, text) for text in long]
    names += [workdir.evaluation_name(lists[0], 8, long[0], text) for text in long]
    names += [workdir.evaluation_name((4,), 8, '\u00e9' * 300), workdir.evaluation_name((4,), 8, '\u00e9' * 301)]
    assert len(set(names)) == len(names)
    for name in names:
        assert '/' not in name
        assert len(name.encode()) <= 200
        assert name.startswith('evaluation_')


def git(folder, *arguments):
    who = ('-c', 'user.name=a', '-c', 'user.email=a@b.c')
    subprocess.run(['git', *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_changes_to_the_code_are_kept(tmp_path, monkeypatch):
    code, (clean, changed) = tmp_path / 'code', (tmp_path / name for name in ('clean', 'changed'))
    (code / 'mha' / 'run').mkdir(parents=True)
    (code / 'a.py').write_text('x = 1\n')
    git(code, 'init')
    git(code, 'add', '.')
    git(code, 'commit', '-m', 'a')
    monkeypatch.setattr(workdir, '__file__', str(code / 'mha' / 'run' / 'workdir.py'))
    workdir.claim(clean, {'seed': 0})
    (code / 'a.py').write_text('x = 2\n')
    (code / 'scheme.py').write_text('y = 3\n')
    (code / 'notes.txt').write_text('not code')
    workdir.claim(changed, {'seed': 0})
    told = [json.loads((folder / 'environment.json').read_text())['changed'] for folder in (clean, changed)]
    assert told == [False, True]
    assert not (clean / 'changes.patch').exists()
    patch = (changed / 'changes.patch').read_text()
    assert '+x = 2' in patch
    assert '+y = 3' in patch
    assert 'not code' not in patch
    git(code, 'stash')
    (code / 'scheme.py').unlink()
    git(code, 'apply', str(changed / 'changes.patch'))
    assert (code / 'scheme.py').read_text() == 'y = 3\n'
    monkeypatch.setattr(workdir, 'LARGEST_PATCH', 10)
    workdir.claim(tmp_path / 'large', {'seed': 0})
    assert json.loads((tmp_path / 'large' / 'environment.json').read_text())['changed'] == 'too much to keep'
    assert not (tmp_path / 'large' / 'changes.patch').exists()
    (code / '.git').rename(tmp_path / 'elsewhere')
    assert workdir.environment()[0]['commit'] is None


def test_a_bar_outside_of_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    with parallel.progress(total=500, unit=' steps', desc='train') as bar:
        for _ in range(500):
            bar.update()
            bar.set_postfix_str('loss 1')
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith('train:   0%')
    assert last.startswith('train: 100%')
    monkeypatch.setattr(parallel.Progress, 'EVERY', -1)
    with parallel.progress(total=5, desc='train') as bar:
        for _ in range(5):
            bar.set_postfix_str('loss 1')
    assert len(capsys.readouterr().err.splitlines()) > 5


def test_subwords_of_a_run(tmp_path):
    workdir.keep_subwords(tmp_path, '')
    assert not [*tmp_path.iterdir()]
    workdir.keep_subwords(tmp_path, '{"a": 1}')
    workdir.check_subwords(tmp_path, '{"a": 1}')
    with pytest.raises(UserError, match='was trained on other subwords'):
        workdir.keep_subwords(tmp_path, '{"a": 2}')
    assert (tmp_path / 'tokenizer.json').read_text() == '{"a": 1}'


def test_rows_with_line_breaks_are_read_as_written(tmp_path):
    rows = [{'source': text, 'target': f'{text}!'} for text in ('plain', 'cr\rhere', 'two\nlines', '\r\n', '"a", b')]
    workdir.write_rows(tmp_path / 'a.csv', rows)
    with (tmp_path / 'a.csv').open(newline='') as file:
        assert [*csv.DictReader(file)] == rows
