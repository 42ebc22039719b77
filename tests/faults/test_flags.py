"""Flags of eval.py, right or wrong, and files with prompts: results, or one line that names the mistake."""

import contextlib
import importlib
import io
import os
import random
import sys

import pytest
from absl.testing import flagsaver

from mha import cli, datasets, positions, tasks
from tests.faults.test_input import LENGTHS, Late, limited, one_line

pytestmark = pytest.mark.slow

CASES = int(os.environ.get('MHA_FLAG_CASES', 500))
SECONDS = 60
CONFIG = """
from configs import common

def get_config():
    config = common.get_config()
    config.task = {task!r}
    config.model.update(dict(layers=1, dim=8, heads=2))
    config.model.update({model})
    config.train.update(dict(steps=2, batch_size=4, lengths='20-40', buckets=1))
    config.eval.update(dict(lengths='24,40', examples=4, buckets=1))
    return config
"""
RUNS = {
    'reverse': ('reverse', {'causal': True, 'position': 'rope'}, ('generate', 'prompts', 'probe', 'lengths')),
    'sort': ('bucket_sort', {'position': 'randomize(max_position=128)|sincos'}, ('probe', 'lengths')),
    'text': ("lm('{data}/*.txt')", {'causal': True, 'position': 'alibi'}, ('generate', 'prompts', 'probe', 'lengths')),
    'labels': ("classification('{data}/rows.csv')", {'readout': 'pooled'}, ('classify', 'prompts', 'lengths')),
    'pairs': ("translation('{data}/pairs.tsv')", {'position': 't5', 'decoder_layers': 1}, ('translate', 'generate')),
}
"""Task and settings of the model of each run, and flags that suit it."""
RIGHT = {
    'lengths': ('24', '40', '20-40:10', '32,64'),
    'examples': ('2', '4'),
    'max_length': ('1', '5', '60'),
    'temperature': ('0.5', '1', '2.0'),
    'top_k': ('1', '3', '1000'),
    'top_p': ('0.5', '1'),
    'beams': ('1', '2'),
    'seed': ('0', '7'),
    'generate': ('ab', '0 1', 'it was good'),
    'classify': ('it was good', 'x'),
    'probe': ('', 'abc', '0 1 1'),
    'until': ('a', ''),
    'against': ('2',),
    'position': ('rope', 'alibi', 'none'),
}
"""Values that most runs take."""
WHOLE = [
    '1',
    '2',
    '4',
    '7',
    '0',
    '-1',
    '99999999999999999999',
    '1e3',
    '1.5',
    'a',
    '',
    '٣',
    'nan',
    '0x10',
    'True',
    ' 2',
    '4294967296',
]
REAL = ['0', '0.0', '0.5', '1', '2', '-1', 'nan', 'inf', '-inf', '1e-40', '1e40', '1e999', 'a', '', '0,5', '-0.0']
TEXTS = [
    'a',
    'def main(',
    '0 1 2',
    '01',
    'abc ' * 20,
    '',
    ' ',
    '\n',
    '\x00',
    '\x1b[31m',
    '\ud800',
    '\u00e4',
    '\U0001f600',
    'x' * 3000,
    '--',
]
SPECS = [
    'none',
    'rope',
    'learned',
    'pi(scale=4)|rope',
    'ropee',
    'rope|',
    'rope(',
    '',
    '|',
    'rope,rope',
    'rope(base=nan)',
    'x' * 3000,
]
SIZES = [
    text
    for text in LENGTHS
    if not text[:1].isdecimal() or int(text.split('-')[-1].split(':')[0].split(',')[0][:9]) < 100
]
SIZES += ['8', '2,4', '13', '40', '1', '64', '4,4', '2-6:0', 'a', '4,', '٣', '-4', '1-10000000000', '9' * 5000]


def value(rng, name, folder):
    """Value of a flag, mostly one that is right."""
    if name in RIGHT and rng.random() < 0.75:
        return rng.choice(RIGHT[name])
    if name in ('examples', 'max_length', 'top_k', 'beams', 'seed'):
        return rng.choice(WHOLE)
    if name in ('temperature', 'top_p'):
        return rng.choice(REAL)
    if name == 'lengths':
        return rng.choice(SIZES)
    if name == 'position':
        return rng.choice((*SPECS, positions.example(rng.choice(positions.names()))))
    if name == 'task':
        return rng.choice(
            (
                'reverse',
                'bucket_sort',
                '',
                'reversee',
                "lm('/dev/zero')",
                "lm('nowhere/*.txt')",
                tasks.example(rng.choice(tasks.names())),
            )
        )
    if name == 'prompts':
        return rng.choice(
            (
                '/dev/zero',
                '/dev/null',
                '/proc/self/mem',
                str(folder),
                'nowhere',
                '',
                *(f'{folder}/{file}' for file in PROMPTS),
            )
        )
    if name == 'against':
        return rng.choice(
            (
                '2',
                '1',
                '0',
                '-1',
                '99999999999999999999',
                '',
                'nowhere',
                str(folder),
                *(f'{folder}/{run}' for run in RUNS),
            )
        )
    return rng.choice(TEXTS)


PROMPTS = {
    'plain': b'a\nab\n',
    'digits': b'0 1 2\n3 4\n',
    'empty': b'',
    'gap': b'a\n\nb\n',
    'latin': 'ä\n'.encode('latin-1'),
    'utf16': 'a\nb\n'.encode('utf-16'),
    'zeros': b'\0' * 100,
    'noise': random.Random(0).randbytes(1000),
    'long': b'a' * 3000,
    'windows': b'\xef\xbb\xbfa\r\nb\r\n',
}
SWITCHES = ('per_position', 'translate', 'log_probs', 'ablate')
VALUED = (
    'lengths',
    'examples',
    'position',
    'task',
    'generate',
    'classify',
    'probe',
    'against',
    'prompts',
    'max_length',
)
VALUED += ('temperature', 'top_k', 'top_p', 'beams', 'until', 'seed')
TOGETHER = {
    'generate': ('max_length', 'temperature', 'top_k', 'top_p', 'beams', 'until', 'seed', 'log_probs'),
    'prompts': ('max_length', 'temperature', 'beams', 'until'),
    'classify': ('position',),
    'probe': ('lengths', 'against', 'seed', 'ablate', 'position', 'examples'),
    'translate': ('beams', 'examples', 'lengths', 'max_length'),
    'lengths': ('examples', 'position', 'task', 'per_position'),
}
"""Flags that go together: most cases have some of them."""


def case(number, folder):
    """Flags of a case."""
    rng = random.Random(number)
    run = rng.choice(sorted(RUNS))
    first = rng.choice(RUNS[run][-1] if rng.random() < 0.9 else sorted(TOGETHER))
    names = [first, *rng.sample(TOGETHER[first], rng.randint(0, min(2, len(TOGETHER[first]))))]
    if rng.random() < 0.2:
        names.append(rng.choice((*VALUED, *SWITCHES)))
    given = [f'--{name}' if name in SWITCHES else f'--{name}={value(rng, name, folder)}' for name in names]
    workdir = folder / (run if rng.random() < 0.95 else rng.choice(('nowhere', 'data', '')))
    return [f'--workdir={workdir}', *given]


@pytest.fixture(scope='module')
def folder(script, tmp_path_factory):
    """Folder with finished runs, and files with prompts."""
    folder = tmp_path_factory.mktemp('flags')
    data = folder / 'data'
    data.mkdir()
    rng = random.Random(0)
    for index in range(12):
        (data / f'{index}.txt').write_text(''.join(rng.choices('abc \n', k=400)))
    words = [' '.join(rng.choices(('good', 'bad', 'so', 'it', 'was'), k=3)) + f' {index}' for index in range(80)]
    (data / 'rows.csv').write_text('text,label\n' + ''.join(f'{text},{len(text) % 3}\n' for text in words))
    (data / 'pairs.tsv').write_text(''.join(f'{text}\t{text[::-1]}\n' for text in words))
    for name, content in PROMPTS.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / 'fifo')
    for name, (task, model, _) in RUNS.items():
        config = folder / f'{name}.py'
        config.write_text(CONFIG.format(task=task.format(data=data), model=model))
        script('train.py', f'--config={config}', f'--workdir={folder / name}')
    return folder


def outcome(arguments, main):
    """`'done'`, `'refused'`, or what is wrong with the answer to flags."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    try:
        with flagsaver.flagsaver(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), limited(SECONDS):
            sys.argv = ['eval.py', *arguments]
            cli.run(main, optional=('probe',))
    except SystemExit as error:
        code = error.code or 0
    except Late:
        return f'takes more than {SECONDS} s'
    except BaseException as error:
        return f'ends in {type(error).__name__}: {error}'
    said = err.getvalue()
    if code == 0:
        return 'done' if 'Traceback' not in said else f'says {said[-300:]}'
    *_, last = said.rstrip('\n').split('\n')
    right = (
        code == 2
        and last.startswith('eval.py: ')
        and one_line(last.removeprefix('eval.py: '))
        and 'Traceback' not in said
    )
    return 'refused' if right else f'ends with {code}, saying {said[-1000:]}'


def test_eval_does_what_flags_say_or_refuses_them_in_one_line(folder, environ, monkeypatch, capsys):
    monkeypatch.setenv('MHA_CACHE', environ['MHA_CACHE'])
    monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '1')  # this process has used its devices already
    monkeypatch.setattr(sys, 'argv', [])
    main, outcomes = importlib.import_module('eval').main, {}
    datasets.documents(f'{folder}/data/*.txt').read('train')  # imports packages with flags of their own
    for number in range(CASES):
        arguments = case(number, folder)
        before = {path.name for path in folder.iterdir()}
        outcomes[number] = outcome(arguments, main)
        assert {path.name for path in folder.iterdir()} == before
    wrong = {
        number: f'{case(number, folder)} {text}' for number, text in outcomes.items() if text not in ('done', 'refused')
    }
    with capsys.disabled():
        done = sum(text == 'done' for text in outcomes.values())
        print(f'\n{CASES} command lines: {done} done, {CASES - done - len(wrong)} refused, {len(wrong)} neither')
    assert not wrong, wrong
    assert done > CASES / 10
