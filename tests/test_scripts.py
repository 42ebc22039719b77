"""The scripts as their users run them: as processes, in an empty directory of their own.

Most are forks of one process (`script`), which saves each of them seconds. For the same reason most runs are those of
`QUICK`, whose programs compile once, and sweeps have one cell where more would tell nothing."""

import csv
import fcntl
import json
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mha
from mha.machine import parallel
from mha.run import workdir
from mha.spec import escaped

ROOT = Path(__file__).parent.parent
QUICK = (
    '--config=configs/quickstart.py',
    '--config.model.layers=1',
    '--config.model.dim=16',
    '--config.model.heads=2',
    '--config.train.steps=12',
    '--config.train.lengths=1-4',
    '--config.train.batch_size=4',
    '--config.train.buckets=1',
    '--config.train.log_every_steps=4',
    '--config.train.checkpoint_every_steps=4',
    '--config.eval.lengths=2,4,8',
    '--config.eval.examples=8',
    '--config.eval.buckets=1',
)


@pytest.fixture(scope='module')
def finished(environ, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('finished') / 'run'
    command = [sys.executable, 'train.py', *QUICK, f'--workdir={workdir}']
    return workdir, subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)


def files(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob('*')) if path.is_file()}


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [(line['step'], line['loss'], line['accuracy'], line['gradient_norm']) for line in lines]


def test_train_writes_what_it_should(finished):
    workdir, done = finished
    there = {path.name for path in workdir.iterdir()}
    assert there >= {
        'config.json',
        'environment.json',
        'metrics.jsonl',
        'checkpoints',
        'tensorboard',
        'extrapolation.csv',
        'extrapolation.svg',
        'summary.json',
    }
    header, *rows = (workdir / 'extrapolation.csv').read_text().splitlines()
    assert header == 'seed,length,accuracy,exact_match,loss,baseline,examples'
    assert [row.split(',')[1] for row in rows] == ['2', '4', '8']
    summary = json.loads((workdir / 'summary.json').read_text())
    assert summary['status'] == 'finished'
    assert summary['score'] == pytest.approx(float(rows[-1].split(',')[2]))
    assert summary['metric'] == 'accuracy'
    assert summary.keys() >= {'in_range', 'longest', 'longest_share'}
    assert [step for step, *_ in losses(workdir)] == [4, 8, 12]
    assert 'baseline' in done.stdout
    assert 'steps/s' in done.stderr


def test_finished_run_is_shown_and_left_alone(finished, script):
    workdir, _ = finished
    before = files(workdir)
    assert 'is finished' in script('train.py', *QUICK, f'--workdir={workdir}').stdout
    assert files(workdir) == before


STORED = ROOT / 'tests' / 'runs' / 'alibi'


def curve(run):
    _, *rows = (run / 'extrapolation.csv').read_text().splitlines()
    return [[float(value) for value in row.split(',')] for row in rows]


def test_a_run_of_an_earlier_version_evaluates_resumes_and_compares(script, tmp_path):
    """Its config lacks keys that came later; the resumed run repeats its numbers."""
    run = tmp_path / 'run'
    shutil.copytree(STORED, run)
    _, _, *given = shlex.split(json.loads((run / 'environment.json').read_text())['command'])
    command = ['train.py', *(flag for flag in given if not flag.startswith('--workdir')), f'--workdir={run}']
    assert 'is finished' in script(*command).stdout
    script('eval.py', f'--workdir={run}', '--lengths=4,8')
    evaluated = (run / 'evaluation_4_8_16-examples.csv').read_text().splitlines()
    again = [[float(value) for value in row.split(',')] for row in evaluated[1:]]
    assert np.allclose(again, curve(STORED), rtol=1e-5)
    assert '0.195' in script('compare.py', run).stdout
    for path in ('summary.json', 'extrapolation.csv'):
        (run / path).unlink()
    shutil.rmtree(run / 'checkpoints' / '20')
    assert 'resumes from step 10' in script(*command).stdout
    assert np.allclose(curve(run), curve(STORED), rtol=1e-4)
    assert np.allclose(losses(run), losses(STORED), rtol=1e-4)


SMALL = (*QUICK, '--config.optimizer.schedule=constant', '--config.eval.every_steps=6')


@pytest.mark.slow
def test_a_run_goes_on_to_more_steps(script, finished, tmp_path):
    """As if they had been asked for at once; its first results stay. Not while a process has it, nor where the schedule
    depends on the number of steps."""
    grown, whole = tmp_path / 'grown', tmp_path / 'whole'
    script('train.py', *SMALL, f'--workdir={grown}')
    before = files(grown)
    with open(grown / 'lock') as lock:  # as if another process had it
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = script('train.py', *SMALL, '--config.train.steps=16', f'--workdir={grown}', code=2).stderr
    assert 'is in use by process' in told
    assert files(grown) == before
    for run in (grown, whole):
        script('train.py', *SMALL, '--config.train.steps=16', f'--workdir={run}')
    assert (grown / 'extrapolation_after_12_steps.csv').read_bytes() == before[grown / 'extrapolation.csv']
    for name in ('extrapolation.csv', 'evaluations.csv'):
        assert (grown / name).read_text() == (whole / name).read_text()
    steps = [row.partition(',')[0] for row in (grown / 'evaluations.csv').read_text().splitlines()]
    assert list(dict.fromkeys(steps)) == ['step', '6', '12', '16']
    told = script('train.py', *SMALL, '--config.train.steps=9', f'--workdir={grown}', code=2).stderr
    assert 'train.steps is 16 there and 9 here' in told
    told = script('train.py', *QUICK, '--config.train.steps=16', f'--workdir={finished[0]}', code=2).stderr
    assert "cannot go on to 16: its optimizer.schedule='cosine' depends on their number" in told


def test_a_run_starts_with_the_weights_of_another(script, finished, tmp_path):
    """One step at a tiny learning rate leaves them as they were; other shapes are refused."""
    still = ('--config.train.steps=1', '--config.optimizer.learning_rate=1e-12')
    script('train.py', *QUICK, *still, f'--workdir={tmp_path / "a"}', f'--init_from={finished[0]}')
    one, other = (np.array(curve(run)) for run in (tmp_path / 'a', finished[0]))
    assert np.allclose(one[:, 2:], other[:, 2:], atol=1e-4)
    for path in ('environment.json', 'summary.json'):
        assert json.loads((tmp_path / 'a' / path).read_text())['init_from'] == str(finished[0])
    given = [*QUICK, '--config.model.dim=8', f'--workdir={tmp_path / "b"}', f'--init_from={finished[0]}']
    assert 'the weights to start with do not fit' in script('train.py', *given, code=2).stderr
    assert not (tmp_path / 'b').exists()


@pytest.mark.slow
def test_eval_of_tasks_that_read_data(environ, script, tmp_path):
    """One in processes of its own: data reach a device only after the devices are counted."""
    (tmp_path / 'a.txt').write_text('to be or not to be ' * 40)

    def process(*command):
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    text = f'text({str(tmp_path / "a.txt")!r})'
    for number, (task, call) in enumerate(((text, process), ('scan', script))):
        workdir = tmp_path / f'run{number}'
        call('train.py', *QUICK, '--config.model.causal=true', f'--config.task={task}', f'--workdir={workdir}')
        call('eval.py', '--lengths=3', '--examples=64', f'--workdir={workdir}')
        assert len((workdir / 'evaluation_3_64-examples.csv').read_text().splitlines()) == 2
    prompts, run = tmp_path / 'prompts.txt', f'--workdir={tmp_path / "run0"}'
    prompts.write_bytes('\ufeffto be\r\nnot\n'.encode())
    lines = script('eval.py', run, f'--prompts={prompts}', '--max_length=5').stdout.splitlines()
    first, second = map(json.loads, lines)
    assert (first['prompt'], second['prompt']) == ('to be', 'not')
    done = script('eval.py', run, '--generate=to be', '--max_length=5')
    assert done.stdout == 'to be' + escaped(first['text'])
    assert done.stderr.strip().endswith('tokens/s, compiling included')
    done = script('eval.py', run, '--generate=to be', '--max_length=20', '--log_probs')
    *_, some, total = (float(line.split()[-1]) for line in done.stdout.splitlines()[-21:])
    assert total < some < 0
    assert 'tokens/s after compiling' in done.stderr
    line = json.loads(
        script('eval.py', run, f'--prompts={prompts}', '--max_length=5', '--log_probs').stdout.split('\n')[0]
    )
    assert ''.join(line['tokens']) == line['text'] == first['text']
    assert sum(line['log_probs']) == pytest.approx(line['log_prob'])
    assert script('eval.py', run, '--generate=to be', '--max_length=5', '--beams=2').stdout.startswith('to be')
    words = tmp_path / 'run1'  # scan
    assert script('eval.py', f'--workdir={words}', '--generate=jump twice', '--max_length=3').stdout.startswith(
        'jump twice '
    )
    for flags, words in {
        ('--generate=', '--max_length=5'): 'needs prompts of at least one token',
        ('--generate=a', '--beams=2', '--temperature=1'): 'choose one',
        ('--generate=a', '--top_p=2', '--temperature=1'): 'top_p must be above 0 and at most 1',
        ('--generate=a', '--top_k=5'): 'set a temperature above 0',
        ('--generate=a', f'--prompts={prompts}'): 'choose one',
        ('--generate=a', '--lengths=3'): '--lengths is for an evaluation',
        ('--lengths=3', '--temperature=1'): 'add --generate or --prompts',
        (f'--prompts={tmp_path / "none"}',): 'cannot read',
    }.items():
        told = script('eval.py', run, *flags, code=2).stderr
        assert words in told
        assert told.count('\n') == 1


def test_classification(environ, script, tmp_path, monkeypatch):
    """A model that classifies labels texts as its evaluation does: those of the test split are right equally often."""
    table, labels = tmp_path / 'a.csv', ('neg', 'pos')
    table.write_text('text,label\n' + ''.join(f'{"bg"[i % 2]}{i} film,{labels[i % 2]}\n' for i in range(99)))
    task = f'--config.task=classification({str(table)!r})'
    flag = f'--workdir={tmp_path / "run"}'
    script('train.py', *QUICK, task, '--config.model.readout=pooled', flag)
    monkeypatch.setenv('MHA_CACHE', environ['MHA_CACHE'])
    run = mha.load(tmp_path / 'run')
    columns = run.task.corpus.read('test')
    texts = [text.decode() for text in columns['text']]
    found = run.classify(texts)
    right = [next(iter(chances)) == labels[label] for chances, label in zip(found, columns['label'], strict=True)]
    (row,) = run.variant(lengths=[8], examples=len(texts)).evaluate()
    assert np.mean(right) == pytest.approx(row['accuracy'])
    assert all(sum(chances.values()) == pytest.approx(1, abs=1e-5) for chances in found)
    assert run.classify('g7 film, longer than any in training') == pytest.approx(run.classify('g7 film,'))
    assert run.classify([]) == []

    best, other = (line.split() for line in script('eval.py', flag, '--classify=g7 film').stdout.splitlines())
    assert float(best[0]) >= float(other[0])
    assert {best[1], other[1]} == {*labels}
    (tmp_path / 'texts.txt').write_text('g7 film\nb8 film\n')
    prompts = f'--prompts={tmp_path / "texts.txt"}'
    lines = [json.loads(line) for line in script('eval.py', flag, prompts).stdout.splitlines()]
    assert [line['text'] for line in lines] == ['g7 film', 'b8 film']
    assert lines[0]['label'] == best[1] == next(iter(lines[0]['probabilities']))
    for flags, words in {
        ('--generate=a',): 'label one by eval.py --classify',
        ('--classify=',): 'at least one token',
        ('--classify=a', prompts): 'choose one',
        ('--classify=a', '--lengths=3'): '--lengths is for an evaluation',
        ('--classify=a', '--top_k=3'): 'is for generated texts',
    }.items():
        assert words in script('eval.py', flag, *flags, code=2).stderr


def test_translation(script, tmp_path):
    """An encoder-decoder and a prefix LM translate the test pairs."""
    pairs = tmp_path / 'pairs.tsv'
    pairs.write_text(''.join(f'{word}\t{word.upper()}\n' for word in (f'word {i:02}' for i in range(60))))
    common = [
        f"--config.task=translation('{pairs}')",
        '--config.train.lengths=7',
        '--config.eval.lengths=7',
        '--config.model.position=rope',
    ]
    causal = '--config.model.causal=true', '--config.model.prefix_lm=true'
    for name, model in {'decoder': ('--config.model.decoder_layers=1',), 'prefix': causal}.items():
        run = f'--workdir={tmp_path / name}'
        script('train.py', *QUICK, *common, *model, run)
        done = script('eval.py', run, '--translate', '--beams=2', '--examples=3', '--max_length=8').stdout
        assert [line.split()[0] for line in done.splitlines()[:4]] == ['BLEU', 'model', 'most', 'source']
        (table,) = (tmp_path / name).glob('translations_*.csv')
        header, *rows = csv.reader(table.open())
        assert header == ['source', 'reference', 'translation']
        assert len(rows) == 3
        assert all(reference == source.upper() for source, reference, _ in rows)
        scores = json.loads(table.with_suffix('.json').read_text())
        assert (scores['pairs'], scores['beams']) == (3, 2)
        assert 0 <= scores['scores']['model']['chrf'] <= 100
        text = script('eval.py', run, '--generate=word 99', '--max_length=4').stdout
        assert text.startswith('word 99\n')
    for flags, words in {
        ('--translate', '--temperature=1'): '--temperature is for generated texts',
        ('--translate', '--lengths=3'): 'length 3 has no pair: the shortest one has a sentence of 7 tokens',
    }.items():
        assert words in script('eval.py', run, *flags, code=2).stderr
    told = script('eval.py', f'--workdir={ROOT / "tests" / "runs" / "alibi"}', '--translate', code=2).stderr
    assert 'the task has no sentence pairs' in told


def test_a_path_that_checkpoints_cannot_bear_is_refused(script, tmp_path):
    told = script('train.py', *QUICK, f'--workdir={tmp_path / "a[1]"}', code=2).stderr
    assert told.startswith('train.py: checkpoints cannot be kept below a path with [ or ]')
    assert not (tmp_path / 'a[1]').exists()


def test_eval_needs_the_workdir_alone(finished, script):
    workdir, _ = finished
    before = files(workdir)
    script('eval.py', f'--workdir={workdir}', '--lengths=2,4,8')
    again = (workdir / 'evaluation_2_4_8_8-examples.csv').read_text()
    assert again == (workdir / 'extrapolation.csv').read_text()
    assert '16' in script('eval.py', f'--workdir={workdir}', '--lengths=16', '--per_position').stdout
    header, *rows = (workdir / 'evaluation_16_8-examples_positions.csv').read_text().splitlines()
    assert header == 'seed,length,position,accuracy,count,low,high,loss,loss_low,loss_high'
    assert [row.split(',')[:3] for row in rows] == [['0', '16', str(at)] for at in range(1, 17)]
    assert {path: content for path, content in files(workdir).items() if path in before} == before


def test_eval_goes_on_behind_broken_cells(script, tmp_path):
    for name in 'config', 'good', 'summary', 'unfinished':
        shutil.copytree(ROOT / 'tests' / 'runs' / 'alibi', tmp_path / 'cells' / name)
    for name in 'config', 'summary':
        (tmp_path / 'cells' / name / f'{name}.json').write_text('{"broken')
    (tmp_path / 'cells' / 'unfinished' / 'summary.json').write_text('{"status": "running"}')
    done = script('eval.py', f'--workdir={tmp_path}', '--lengths=3', '--examples=4', code=2)
    assert 'note: 1 of 4 cells are not finished' in done.stdout
    for name in 'config', 'summary':
        assert f'eval.py: cannot read {tmp_path}/cells/{name}/{name}.json' in done.stderr
    assert done.stderr.endswith('eval.py: 2 of 3 cells could not be evaluated, see above\n')
    assert [path.parent.name for path in tmp_path.glob('cells/*/evaluation_3_4-examples.csv')] == ['good']


def test_eval_takes_fewer_examples_of_long_lengths(finished, script, tmp_path):
    """A copy of the script counts 16 tokens as long: 768 pairs are three examples of 16 x 16. Two are taken: devices
    and batches should divide them."""
    text = (ROOT / 'eval.py').read_text()
    assert text.count('PAIRS = 2**34\n') == 1
    (tmp_path / 'eval.py').write_text(text.replace('PAIRS = 2**34\n', 'PAIRS = 768\n'))

    def examples(*arguments):
        done = script(tmp_path / 'eval.py', f'--workdir={finished[0]}', *arguments)
        _, *rows = Path(done.stdout.splitlines()[-1]).read_text().splitlines()
        return {int(row.rpartition(',')[2]) for row in rows}, 'note: ' in done.stdout

    assert examples('--lengths=4') == ({8}, False)
    assert examples('--lengths=4,8') == ({2}, True)
    assert examples('--lengths=4,40') == ({1}, True)
    assert examples('--lengths=4,8', '--examples=8') == ({8}, False)


def test_eval_takes_no_other_checkpoint_than_the_last(finished, script, tmp_path):
    run = tmp_path / 'run'
    shutil.copytree(finished[0], run)
    for lost, words in {
        '12': 'only the checkpoint of step 8, not that of its last step 12',
        '8': 'no checkpoint, not that of',
    }.items():
        shutil.rmtree(run / 'checkpoints' / lost)
        done = script('eval.py', f'--workdir={run}', '--lengths=4', code=2)
        assert words in done.stderr
        assert done.stderr.count('\n') == 1
    (run / 'summary.json').unlink()  # as it says
    script('train.py', *QUICK, f'--workdir={run}')
    script('eval.py', f'--workdir={run}', '--lengths=4')


def test_a_damaged_checkpoint_is_told_and_the_one_before_used(finished, script, tmp_path):
    """An evaluation says so in the name of its file, too. A run that goes on repeats the steps that were lost."""
    run = tmp_path / 'run'
    shutil.copytree(finished[0], run)
    sums = run / 'checkpoints' / '12' / 'checksums' / 'metadata'
    sums.write_text(sums.read_text().replace('1', '2'))
    told = f'note: {run}/checkpoints/12 is damaged ('
    before = {*run.glob('evaluation_*')}
    done = script('eval.py', f'--workdir={run}', '--lengths=4')
    assert told in done.stderr
    assert 'differs from its checksum); step 8 is used' in done.stderr
    assert {*run.glob('evaluation_*')} - before == {run / 'evaluation_4_8-examples_step-8.csv'}
    for name in 'summary.json', 'extrapolation.csv':
        (run / name).unlink()
    done = script('train.py', *QUICK, f'--workdir={run}')
    assert told in done.stderr
    assert 'resumes from step 8' in done.stdout
    assert_same_results(run, finished[0])
    assert sums.read_text() == (finished[0] / 'checkpoints' / '12' / 'checksums' / 'metadata').read_text()
    for step in '8', '12':
        (run / 'checkpoints' / step / 'default' / 'manifest.ocdbt').write_text('')
    done = script('eval.py', f'--workdir={run}', '--lengths=4', code=2)
    assert f'eval.py: cannot read {run}/checkpoints/12 (' in done.stderr
    assert done.stderr.count('\n') == 1


ENDLESS = ('--config.train.steps=1000000', '--config.train.checkpoint_every_steps=1000000')


def ended_by(number, commands, environs, *logs):
    """Sends a signal to processes once all logs have lines; their exit codes, and the seconds they took."""
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)
        for command, env in zip(commands, environs, strict=True)
    ]
    while not all(log.exists() and log.read_text().count('\n') > 2 for log in logs):
        assert all(process.poll() is None for process in running)
        time.sleep(0.01)
    began = time.monotonic()
    for process in running:
        process.send_signal(number)
    told = [process.communicate()[1] for process in running]
    return [process.returncode for process in running], told, time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize('processes', [1, 2])
def test_a_signal_saves_the_last_chunk(processes, environ, tmp_path):
    """Of all processes, the same one. The run resumes there."""
    run, number = tmp_path / 'run', signal.SIGTERM

    def end(commands, environs, workdir):
        return ended_by(number, commands, environs, workdir / 'metrics.jsonl')

    command = [sys.executable, 'train.py', *QUICK, *ENDLESS, f'--workdir={run}']
    found = end([command], [environ], run) if processes == 1 else train_in_two(environ, run, end, *ENDLESS)
    codes, told, seconds = found
    last = losses(run)[-1][0]
    assert codes == [143] * processes, told
    assert f'train.py: interrupted, step {last} is saved - the same command resumes' in told[0]
    assert [path.name for path in (run / 'checkpoints').iterdir()] == [str(last)]
    assert seconds < 10


@pytest.mark.slow
def test_a_sweep_ends_its_cells(environ, tmp_path):
    """They save their state, and none is left."""
    config, grid = tmp_path / 'tiny.py', tmp_path / 'grid'
    config.write_text('from configs.quickstart import get_config\ndef sweep():\n    for n in 0, 1: yield {"seed": n}')
    flags = [f'--config={config}', *QUICK[1:], *ENDLESS, f'--workdir={grid}', '--jobs=2']
    logs = [grid / 'cells' / cell / 'metrics.jsonl' for cell in ('seed=0', 'seed=1')]
    codes, told, seconds = ended_by(signal.SIGTERM, [[sys.executable, 'sweep.py', *flags]], [environ], *logs)
    assert codes == [143], told
    assert told[0].endswith('sweep.py: interrupted - the same command resumes\n')
    assert seconds < 10
    for cell in grid.glob('cells/*'):
        assert not workdir.held(cell)
        assert (grid / 'logs' / f'{cell.name}.log').read_text().count('is saved - the same command resumes') == 1


def test_a_finished_run_without_its_results_is_evaluated_again(finished, script, tmp_path):
    run = tmp_path / 'run'
    shutil.copytree(finished[0], run)
    for content in '', 'seed,length\n':
        (run / 'extrapolation.csv').write_text(content)
        done = script('train.py', *QUICK, f'--workdir={run}', code=2)
        assert 'without its extrapolation.csv the same train.py command evaluates it again' in done.stderr
        assert done.stderr.count('\n') == 1
    (run / 'extrapolation.csv').unlink()
    script('train.py', *QUICK, f'--workdir={run}')
    assert_same_results(run, finished[0])


def test_eval_on_another_task(script, tmp_path):
    """With the symbols and classes of the trained one, and tokens that its parameters serve."""
    run = f'--workdir={tmp_path / "run"}'
    script('train.py', *QUICK, '--config.task=odds_first', '--config.model.position=learned', run)
    before = files(tmp_path)
    for task, words in {
        'bucket_sort': "task 'bucket_sort' has 6 symbols, not the 3 that the model was trained on",
        'duplicate_string': "up to 24 tokens, not the 16 that the parameters of position 'learned' are for",
        "odds_first(order='paper')": "order must be 'documented' or 'released'",
    }.items():
        done = script('eval.py', run, '--lengths=3,4', f'--task={task}', code=2)
        assert done.stderr.count('\n') == 1, done.stderr
        assert words in done.stderr
    assert files(tmp_path) == before
    script('eval.py', run, '--lengths=3,4')
    done = script('eval.py', run, '--lengths=3,4', "--task=odds_first(order='released')", '--position=learned')
    assert "task odds_first(order='released')" in done.stdout
    there = (tmp_path / 'run' / 'evaluation_3_4_8-examples.csv').read_text()
    other = (tmp_path / 'run' / 'evaluation_3_4_8-examples_odds_first_order=_released_learned.csv').read_text()
    assert there != other
    assert all(row.endswith(",odds_first(order='released')") for row in other.splitlines()[1:])
    for name, content in before.items():
        assert name.read_bytes() == content


def test_config_that_lacks_a_key(finished, script, tmp_path):
    workdir, _ = finished
    config = json.loads((workdir / 'config.json').read_text())
    config['train'].pop('curriculum')
    shutil.copy(workdir / 'summary.json', tmp_path)
    shutil.copy(workdir / 'extrapolation.csv', tmp_path)
    (tmp_path / 'config.json').write_text(json.dumps(config))
    done = script('eval.py', f'--workdir={tmp_path}', '--lengths=4', code=2)
    assert done.stderr.count('\n') == 1, done.stderr
    assert "config.json is not the config of a run: 'curriculum' is missing" in done.stderr
    assert str(tmp_path / 'config.json') in done.stderr


def run_and_kill(commands, environs, workdir):
    """Runs the processes of one run, kills them once there is a checkpoint, and runs them again to the end."""
    for kills in True, False:
        running = [
            subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for command, env in zip(commands, environs, strict=True)
        ]
        while kills and not (workdir / 'checkpoints' / '4').exists():
            assert all(process.poll() is None for process in running)
            time.sleep(0.005)
        for process in running:
            if kills:
                process.send_signal(signal.SIGKILL)
            assert process.wait() == (-signal.SIGKILL if kills else 0)


def assert_same_results(one, other):
    assert losses(one) == losses(other)
    assert (one / 'extrapolation.csv').read_text() == (other / 'extrapolation.csv').read_text()


def test_killed_run_resumes_to_the_same_result(finished, script, tmp_path):
    command = ['train.py', *QUICK, f'--workdir={tmp_path / "run"}']
    script(*command, kill_at=tmp_path / 'run' / 'checkpoints' / '4', code=-signal.SIGKILL)
    script(*command)
    assert_same_results(tmp_path / 'run', finished[0])


POPULATION = ('--config.population.seed=0,1', '--config.population.learning_rate=(2e-3,1e30)')


@pytest.fixture(scope='module')
def population(script, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('population') / 'run'
    return workdir, script('train.py', *QUICK, *POPULATION, f'--workdir={workdir}')


def test_a_population_is_a_table_of_its_members(finished, population, script):
    """The member with the settings of a run alone has its results; members that diverge do not stop the others."""
    workdir, done = population
    header, *rows = (workdir / 'extrapolation.csv').read_text().splitlines()
    assert header == 'seed,length,accuracy,exact_match,loss,baseline,examples,learning_rate'
    _, *alone = (finished[0] / 'extrapolation.csv').read_text().splitlines()
    for row, own in zip(rows, alone, strict=False):
        assert list(map(float, row.split(','))) == pytest.approx([*map(float, own.split(',')), 2e-3], rel=1e-4)
    assert [row.split(',')[0] for row in rows] == ['0'] * 3 + ['1'] * 3
    summary = json.loads((workdir / 'summary.json').read_text())
    assert summary['diverged'] == [{'seed': seed, 'learning_rate': 1e30} for seed in (0, 1)]
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    assert [(line['step'], line['seed']) for line in lines if line['learning_rate'] == 2e-3] == [
        (step, seed) for step in (4, 8, 12) for seed in (0, 1)
    ]
    assert 'score' in done.stdout
    assert 'seed=1, learning_rate=0.002' in done.stderr
    again = script('eval.py', f'--workdir={workdir}', '--lengths=2,4,8')
    assert (workdir / 'evaluation_2_4_8_8-examples.csv').read_text() == (workdir / 'extrapolation.csv').read_text()
    assert '2 seeds' in again.stdout
    compared = script('compare.py', workdir)
    assert 'diverged: seed=1, learning_rate=1e+30' in compared.stderr
    assert '2 seeds' in compared.stdout


@pytest.mark.slow
def test_killed_population_resumes_to_the_same_result(population, script, tmp_path):
    command = ['train.py', *QUICK, *POPULATION, f'--workdir={tmp_path / "run"}']
    script(*command, kill_at=tmp_path / 'run' / 'checkpoints' / '4', code=-signal.SIGKILL)
    script(*command)
    assert_same_results(tmp_path / 'run', population[0])


def train_in_two(environ, workdir, act, *settings):
    """Two processes with two devices each share a batch; `act(commands, environs, workdir)` runs them."""
    with socket.create_server(('127.0.0.1', 0)) as free:
        address = f'127.0.0.1:{free.getsockname()[1]}'
    flags = f'{environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=2'
    ours = {'XLA_FLAGS': flags, 'JAX_COORDINATOR_ADDRESS': address, 'JAX_NUM_PROCESSES': '2'}
    command = [sys.executable, 'train.py', *QUICK, *settings, f'--workdir={workdir}']
    return act([command] * 2, [{**environ, **ours, 'JAX_PROCESS_ID': str(index)} for index in range(2)], workdir)


@pytest.mark.slow
def test_killed_processes_resume_to_the_same_result(finished, environ, tmp_path):
    """Killed and started again, two processes end where they would have, and close to where one device does."""
    train_in_two(environ, tmp_path / 'killed', run_and_kill)
    train_in_two(environ, tmp_path / 'whole', run_all)
    assert_same_results(tmp_path / 'killed', tmp_path / 'whole')
    np.testing.assert_allclose(losses(tmp_path / 'whole'), losses(finished[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_killed_runs_on_texts_go_on_with_the_same_batches(environ, script, tmp_path):
    """Texts are drawn at random, with one process and with two; the step in the checkpoint is all that is known of
    them."""
    (tmp_path / 'a.csv').write_text('text,label\n' + ''.join(f'text {i},{i % 3}\n' for i in range(99)))
    task = f"classification('{tmp_path}/a.csv', tokens='bpe(260)')"
    texts = (f'--config.task={task}', '--config.model.readout=pooled')
    command = ['train.py', *QUICK, *texts]
    script(*command, f'--workdir={tmp_path / "whole"}')
    killed = [*command, f'--workdir={tmp_path / "killed"}']
    script(*killed, kill_at=tmp_path / 'killed' / 'checkpoints' / '4', code=-signal.SIGKILL)
    script(*killed)
    assert_same_results(tmp_path / 'killed', tmp_path / 'whole')
    assert (tmp_path / 'whole' / 'tokenizer.json').exists()

    train_in_two(environ, tmp_path / 'two killed', run_and_kill, *texts)
    train_in_two(environ, tmp_path / 'two', run_all, *texts)
    assert_same_results(tmp_path / 'two killed', tmp_path / 'two')
    np.testing.assert_allclose(losses(tmp_path / 'two'), losses(tmp_path / 'whole'), rtol=1e-4, atol=1e-5)

    (tmp_path / 'whole' / 'tokenizer.json').write_text('{}')
    refused = script('eval.py', f'--workdir={tmp_path / "whole"}', '--lengths=4', code=2)
    assert 'was trained on other subwords' in refused.stderr


def run_all(commands, environs, workdir):
    running = [subprocess.Popen(command, cwd=ROOT, env=env) for command, env in zip(commands, environs, strict=True)]
    assert [process.wait() for process in running] == [0, 0]


@pytest.mark.slow
def test_profile_is_written(script, tmp_path):
    script('train.py', *QUICK, f'--workdir={tmp_path / "run"}', '--profile')
    assert list((tmp_path / 'run' / 'profile').rglob('*.xplane.pb'))
    assert list((tmp_path / 'run' / 'profile').rglob('perfetto_trace.json.gz'))


MORE = ('--config.model.position=rope', '--config.train.average=0.9', '--config.optimizer.name=muon')
LATE = ('--config.train.final_position=none', '--config.train.final_steps=6')


@pytest.fixture(scope='module')
def dropped(script, tmp_path_factory):
    """Run whose last steps and evaluation are under another scheme, with a running mean of the parameters, and an
    optimizer whose state is a tree of its own kinds."""
    workdir = tmp_path_factory.mktemp('dropped') / 'run'
    return workdir, script('train.py', *QUICK, *MORE, *LATE, f'--workdir={workdir}')


@pytest.mark.slow
@pytest.mark.parametrize(('every', 'last'), [(4, 8), (6, 6)], ids=['behind the switch', 'at the switch'])
def test_killed_behind_a_switch_of_schemes(every, last, dropped, script, tmp_path):
    command = ['train.py', *QUICK, *MORE, *LATE, f'--config.train.checkpoint_every_steps={every}']
    killed = f'--workdir={tmp_path / "killed"}'
    script(*command, killed, kill_at=tmp_path / 'killed' / 'checkpoints' / f'{last}', code=-signal.SIGKILL)
    script(*command, killed)
    assert_same_results(tmp_path / 'killed', dropped[0])


@pytest.mark.slow
def test_a_scheme_dropped_late(dropped, script, tmp_path):
    """`eval.py` can choose yet another."""
    script('train.py', *QUICK, *MORE, f'--workdir={tmp_path / "kept"}')
    run = tmp_path / 'dropped'
    shutil.copytree(dropped[0], run)
    assert 'mirror image' in dropped[1].stdout
    before, after = losses(tmp_path / 'kept'), losses(run)
    assert [step for step, *_ in after] == [4, 6, 8, 12]
    assert after[0] == before[0]
    assert after[-1] != before[-1]

    curve = (run / 'extrapolation.csv').read_text()
    script('eval.py', f'--workdir={run}', '--lengths=2,4,8')
    assert (run / 'evaluation_2_4_8_8-examples.csv').read_text() == curve
    script('eval.py', f'--workdir={run}', '--lengths=2,4,8', '--position=rope(theta=50)')
    other = (run / 'evaluation_2_4_8_8-examples_rope_theta=50.csv').read_text()
    assert other != curve
    assert all(row.endswith(',rope(theta=50)') for row in other.splitlines()[1:])


def test_sweep_resumes_and_compare_reports(script, tmp_path):
    config = tmp_path / 'tiny.py'
    config.write_text(  # cells have the programs of `finished`
        'from configs import quickstart\n'
        'get_config = quickstart.get_config\n'
        'def sweep():\n'
        '    for seed in (0, 1):\n'
        "        yield {'model.position': 'randomize(max_position=256)|rope', 'seed': seed}\n"
    )
    command = ['sweep.py', f'--config={config}', *QUICK[1:], f'--workdir={tmp_path / "grid"}', '--jobs=2']
    dry = script(*command, '--dry_run')
    assert '(from a rehearsal of 1), ' in dry.stderr
    assert 'in all with --jobs=2' in dry.stderr
    planned = [shlex.split(line) for line in dry.stdout.splitlines()]
    assert [len(words) for words in planned] == [len(planned[0])] * 2
    assert {'--config.model.position=randomize(max_position=256)|rope', '--config.seed=1'} <= {*planned[1]}
    assert not (tmp_path / 'grid').exists()
    script(*command)
    manifest = [json.loads(line) for line in (tmp_path / 'grid' / 'manifest.jsonl').read_text().splitlines()]
    position = {'model.position': 'randomize(max_position=256)|rope'}
    assert [cell['overrides'] for cell in manifest] == [{**position, 'seed': seed} for seed in (0, 1)]
    before = files(tmp_path / 'grid' / 'cells')
    assert 'finished 2 cells' in script(*command).stdout
    assert files(tmp_path / 'grid' / 'cells') == before
    other = script(*command, '--config.train.steps=16', code=2)  # not the grid that is there
    assert 'was trained for 12 steps and cannot go on to 16' in other.stderr
    assert files(tmp_path / 'grid' / 'cells') == before

    shown = script('compare.py', tmp_path / 'grid').stdout
    assert 'randomize(max_position=256)|rope' in shown
    assert '2 seeds' in shown
    report = tmp_path / 'grid' / 'report'
    written = {
        'table.csv',
        'seeds.csv',
        'results.csv',
        'table.md',
        'table.tex',
        'curves.svg',
        'curves.pdf',
        'report.html',
    }
    assert {path.name for path in report.iterdir()} == written


@pytest.mark.slow
def test_a_sweep_takes_what_one_run_takes(script, tmp_path):
    """Batches of any size; a population in each cell, as a range; and a mesh of the cores that there are."""
    config, start = tmp_path / 'tiny.py', 'from configs.quickstart import get_config\ndef sweep():\n    '
    config.write_text(f'{start}for size in 16, 15: yield {{"train.batch_size": size}}')
    mesh = f'--config.mesh.data={min(parallel.cores(), 2)}'
    rest = [flag for flag in QUICK[1:] if not flag.startswith('--config.train.batch_size')]
    command = ['sweep.py', f'--config={config}', *rest, mesh, f'--workdir={tmp_path / "grid"}']
    many = script(*command, '--config.mesh.data=0', f'--workdir={tmp_path / "many"}', '--cluster=commands')
    assert len(many.stdout.splitlines()) == 2
    config.write_text(f'{start}yield {{"population.seed": range(2)}}')
    command.append('--config.train.batch_size=16')
    script(*command)
    assert '--config.population.seed=(0, 1)' in shlex.split(script(*command, '--dry_run').stdout)
    (cell,) = (tmp_path / 'grid' / 'cells').iterdir()
    rows = (cell / 'extrapolation.csv').read_text().splitlines()[1:]
    assert [row.split(',')[0] for row in rows] == ['0'] * 3 + ['1'] * 3


MISTAKES = {
    'no config': ([], '--config=... is missing'),
    'config file': (['--config=configs/quickstrat.py'], 'configs/quickstart.py'),
    'workdir': ([QUICK[0]], '--workdir=... is missing'),
    'flag': ([QUICK[0], '--wordkir=a'], 'workdir'),
    'key': ([*QUICK, '--config.model.headz=2'], "did you mean 'heads'"),
    'section': ([*QUICK, '--config.modle.heads=2'], "did you mean 'model'"),
    'key of another task': ([*QUICK, '--config.data.text=x'], 'arguments of a task go into its spec'),
    'int': ([*QUICK, '--config.model.heads=two'], 'expected a whole number'),
    'float': ([*QUICK, '--config.optimizer.learning_rate=fast'], 'expected a number'),
    'bool': ([*QUICK, '--config.model.causal=perhaps'], 'expected true or false'),
    'scheme': (
        [*QUICK, '--config.model.position=ropee'],
        "train.py: model.position: unknown position scheme 'ropee' - did you mean 'rope'",
    ),
    'scheme argument': ([*QUICK, '--config.model.position=rope(thta=1)'], "did you mean 'theta'"),
    'scheme syntax': ([*QUICK, '--config.model.position=rope|'], 'name(argument=value)|name'),
    'task': ([*QUICK, '--config.task=bucketsort'], "did you mean 'bucket_sort'"),
    'heads': ([*QUICK, '--config.model.heads=3'], 'choose from 1, 2, 4, 8, 16'),
    'odd head': ([*QUICK, '--config.model.head_dim=5', '--config.model.position=rope'], 'even number'),
    'length 0': ([*QUICK, '--config.train.lengths=0-4'], 'lengths start at 1'),
    'curriculum': ([*QUICK, '--config.train.curriculum=unifrom'], "did you mean 'uniform'"),
    'curriculum argument': ([*QUICK, '--config.train.curriculum=fixed(5)'], 'one of train.lengths'),
    'length words': ([*QUICK, '--config.eval.lengths=long'], '10,20,40 or 1-40'),
    'no final scheme': ([*QUICK, '--config.train.final_steps=2'], 'needs train.final_position'),
    'late': ([*QUICK, '--config.train.final_position=none', '--config.train.final_steps=13'], 'from 0 to'),
    'other parameters': ([*QUICK, '--config.train.final_position=t5'], 'their parameters differ'),
    'causal only': ([*QUICK, '--config.model.position=xpos'], 'set model.causal=True'),
    'table': ([*QUICK, '--config.model.position=learned(max_position=8)'], '8 rows'),
    'range': ([*QUICK, '--config.model.position=randomize(max_position=9)|rope'], '9 positions'),
    'choice': ([*QUICK, '--config.model.norm=middle'], "'post' or 'pre'"),
    'core': ([*QUICK, '--config.model.core=dens'], "did you mean 'dense'"),
    'linear': ([*QUICK, '--config.model.core=linear', '--config.model.position=alibi'], 'forms no logits'),
    'pattern': ([*QUICK, '--config.model.pattern=windw(4)'], "did you mean 'window'"),
    'no text files': ([*QUICK, "--config.task=lm('nowhere/*.txt')"], 'no file matches'),
    'steps': ([*QUICK, '--config.train.steps=0'], 'train.steps must be at least 1'),
    'warm-up': ([*QUICK, '--config.optimizer.schedule=warmup(12)|linear'], 'below train.steps=12'),
    'optimizer': ([*QUICK, '--config.optimizer.name=adm'], "did you mean 'adam'"),
    'pooled': ([*QUICK, '--config.model.readout=pooled'], "readout='token'"),
    'quotes inside': ([*QUICK, "--config.model.position='rope'"], 'without quotes inside'),
    'seed': ([*QUICK, '--config.eval.seed=99999999999'], 'from 0 to 4,294,967,295'),
    'endless': ([*QUICK, '--config.eval.lengths=1-100000000000'], 'lengths end at'),
    'not a number': (
        [*QUICK, '--config.optimizer.learning_rate=nan'],
        'optimizer.learning_rate must be from 1e-30 to 1e+30, not nan',
    ),
    'section for a key': ([*QUICK, '--config.optimizer=lion'], 'set one of its keys'),
    'member': (
        [*QUICK, '--config.population.learning_rate=1e-3,-1'],
        'population.learning_rate must be from 1e-30 to 1e+30, not -1',
    ),
    'two configs': ([*QUICK, '--config=configs/heads.py'], '--config is given twice'),
    'None': ([*QUICK, '--config.model.head_dim=None'], '--config.model.head_dim cannot be set to None'),
    'None of a word': ([*QUICK, '--config.train.final_position=None'], '--config.train.final_position cannot be'),
    'endless training': ([*QUICK, '--config.train.steps=100000000000000000000'], 'train.steps must be at most'),
    'vast': ([*QUICK, '--config.model.dim=100000000'], 'model.dim must be at most'),
    'endless model': ([*QUICK, '--config.model.layers=1000000'], 'model.layers must be at most'),
    'vast evaluation': ([*QUICK, '--config.eval.examples=1000000000'], 'eval.examples must be at most'),
    'infinite': ([*QUICK, '--config.model.position=rope(theta=1e400)'], 'must be finite'),
    'stray argument': ([*QUICK, 'rope'], 'unexpected argument'),
}


@pytest.mark.parametrize('name', MISTAKES)
def test_mistake_is_one_line_and_writes_nothing(name, script, tmp_path):
    arguments, words = MISTAKES[name]
    given = [] if name in ('workdir', 'flag') else [f'--workdir={tmp_path / "run"}']
    done = script('train.py', *arguments, *given, code=2)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert words in done.stderr
    assert not (tmp_path / 'run').exists()


def test_workdir_of_another_run_is_left_alone(finished, script):
    workdir, _ = finished
    before = files(workdir)
    done = script('train.py', *QUICK, '--config.model.position=alibi', f'--workdir={workdir}', code=2)
    assert done.stderr.count('\n') == 1
    assert 'model.position' in done.stderr
    assert files(workdir) == before


def test_workdir_that_cannot_be(script, tmp_path):
    (tmp_path / 'file').write_text('precious')
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'config.json').write_text('{')
    for place in ('file', 'file/run', 'run'):
        done = script('train.py', *QUICK, f'--workdir={tmp_path / place}', code=2)
        assert done.stderr.count('\n') == 1, done.stderr
    assert (tmp_path / 'file').read_text() == 'precious'
    assert (tmp_path / 'run' / 'config.json').read_text() == '{'


@pytest.mark.parametrize(
    ('source', 'words'),
    [
        ('def get_config(:', 'SyntaxError'),
        ('import nothing_like_it', 'ModuleNotFoundError'),
        ('x = 1', 'no get_config()'),
        ('from configs.quickstart import get_config\ndef sweep():\n    yield "rope"', "not 'rope'"),
        ('from configs.quickstart import get_config\ndef sweep():\n    yield {"model.headz": 2}', 'headz'),
        (
            'from configs.quickstart import get_config\ndef sweep():\n    yield {"model.heads": 1 / 0}',
            'ZeroDivisionError in mine.py, line 3',
        ),
        (
            'from configs.quickstart import get_config\ndef sweep():\n    yield {"seed": 0}\n    exit("no more")',
            'sweep() of {mine} fails: SystemExit in mine.py, line 4: no more',
        ),
        ('raise SystemExit(0)', '{mine} does not run: SystemExit in mine.py, line 1: 0'),
        ('from configs.quickstart import get_config\ndef sweep():\n    yield {}', 'which sets nothing'),
        (
            'from configs.quickstart import get_config\ndef sweep():\n    yield {"model": {"heads": 2}}',
            'such as {"model.heads": ..}',
        ),
        (
            'from configs.quickstart import get_config\ndef sweep():\n    yield {"model.head": 2}',
            "no key 'model.head' - did you mean 'model.heads'?",
        ),
        (
            'from configs.quickstart import get_config\ndef sweep():\n    yield {"model.heads": "two"}',
            ' cannot be ',
        ),
        ('from configs.quickstart import get_config\ndef sweep():\n    for _ in 1, 2: yield {"seed": 2}', 'two cells'),
        (
            'from configs.quickstart import get_config\ndef sweep():\n    yield {"model.head_dim": None}',
            "'model.head_dim': None - leave the key out",
        ),
        (
            'from configs.quickstart import get_config\ndef sweep():\n    for n in 2, 3: yield {"model.heads": n}',
            'cell heads=3: 3 heads do not divide',
        ),
    ],
)
def test_config_that_does_not_work(source, words, script, tmp_path):
    (tmp_path / 'mine.py').write_text(source)
    done = script('sweep.py', '--config', tmp_path / 'mine.py', f'--workdir={tmp_path / "grid"}', code=2)
    assert done.stderr.count('\n') == 1, done.stderr
    assert words.replace('{mine}', str(tmp_path / 'mine.py')) in done.stderr
    assert len(done.stderr) < 400
    assert not (tmp_path / 'grid').exists()


@pytest.fixture(scope='module')
def one_cell(tmp_path_factory):
    """Flags of a sweep of one cell, which is the run of `QUICK`."""
    config = tmp_path_factory.mktemp('one_cell') / 'one.py'
    config.write_text('from configs.quickstart import get_config\ndef sweep():\n    yield {"seed": 0}')
    return f'--config={config}', *QUICK[1:]


def test_directories_that_a_sweep_cannot_have(one_cell, script, tmp_path):
    """And one that a launcher left before it named its cells, which it can."""
    (tmp_path / 'file').write_text('')
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'broken' / 'manifest.jsonl').write_text('garbage\n[]\n{"cell": "a", "overrides": 3}\n')
    for name, told in {'file': 'cannot make', 'broken': 'names no cell that can be read'}.items():
        done = script('sweep.py', *one_cell, f'--workdir={tmp_path / name}', '--cluster=commands', code=2)
        assert told in done.stderr
        assert done.stderr.count('\n') == 1
    (tmp_path / 'early' / 'configs').mkdir(parents=True)
    (tmp_path / 'early' / 'lock').write_text('')
    told = script('sweep.py', *one_cell, f'--workdir={tmp_path / "early"}', '--cluster=commands').stdout
    assert 'train.py' in told


def test_values_of_numpy_in_a_sweep(script, tmp_path):
    config = tmp_path / 'mine.py'
    start = 'import numpy as np\nfrom configs import sweeps\nfrom configs.quickstart import get_config\n'
    start += 'def sweep():\n    '
    config.write_text(f"{start}return sweeps.over('seed', np.arange(2))")
    command = ('sweep.py', f'--config={config}', *QUICK[1:], f'--workdir={tmp_path / "grid"}', '--cluster=commands')
    lines = script(*command).stdout.splitlines()
    assert [line.rpartition('/')[2] for line in lines] == ['seed=0', 'seed=1']
    config.write_text(f"{start}return sweeps.over('seed', [object()])")
    assert 'no number, text or tuple' in script(*command, code=2).stderr


def test_a_flag_that_the_sweep_sets_is_refused(script, tmp_path):
    for flags in ['--config.seed=7'], ['--config.seed=7', '--dry_run']:
        done = script('sweep.py', QUICK[0], *flags, f'--workdir={tmp_path / "grid"}', code=2)
        assert '--config.seed is set by sweep() of configs/quickstart.py in its cells' in done.stderr
        assert done.stderr.count('\n') == 1


@pytest.mark.slow
def test_cells_train_the_config_as_it_was(environ, script, tmp_path):
    """Though its file, with an argument and keys that refer to others, is edited while they run; and a launcher that
    was killed leaves cells that the next one finds."""
    config, grid = tmp_path / 'mine.py', tmp_path / 'grid'
    config.write_text(
        'from configs import quickstart\n'
        'def get_config(steps):\n'
        '    config = quickstart.get_config()\n'
        '    config.train.steps = int(steps)\n'
        "    config.model.mlp_dim = config.model.get_ref('dim') * 2\n"
        '    return config\n'
        'def sweep():\n'
        "    for dim in 16, 24: yield {'model.dim': dim}\n"
    )
    rest = [flag for flag in QUICK[1:] if not flag.startswith(('--config.train.steps', '--config.model.dim'))]
    command = [sys.executable, 'sweep.py', f'--config={config}:12', *rest, f'--workdir={grid}']
    sweep = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (grid / 'cells' / 'dim=16' / 'lock').exists():
        assert sweep.poll() is None
        time.sleep(0.01)
    orphan = (grid / 'cells' / 'dim=16' / 'lock').read_text().partition(' ')[0] or '..'
    told = script(*command[1:], code=2).stderr
    assert f'{grid} is in use by process {sweep.pid}' in told
    config.write_text('raise ValueError')
    assert sweep.wait() == 0
    assert orphan.isdigit() or orphan == '..'
    for dim in 16, 24:
        saved = json.loads((grid / 'cells' / f'dim={dim}' / 'config.json').read_text())
        assert (saved['train']['steps'], saved['model']['mlp_dim']) == (12, 2 * dim)
    again = script('train.py', f'--config={grid}/cells/dim=16/config.json', f'--workdir={tmp_path / "again"}')
    assert 'score' in again.stdout
    assert_same_results(tmp_path / 'again', grid / 'cells' / 'dim=16')


def test_foreign_workdir_is_left_alone(one_cell, script, tmp_path):
    (tmp_path / 'thesis.tex').write_text('precious')
    for command in (['train.py', *QUICK], ['sweep.py', *one_cell]):
        done = script(*command, f'--workdir={tmp_path}', code=2)
        assert done.stderr.count('\n') == 1
        assert 'not empty' in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


@pytest.mark.parametrize(
    ('command', 'words'),
    [
        (['eval.py', '--lengths=4'], '--workdir=... is missing'),
        (['eval.py', '--workdir=nowhere', '--lengths=4'], 'no run in nowhere'),
        (['eval.py', '--workdir={run}', '--lengths=0'], 'lengths start at 1'),
        (['eval.py', '--workdir={run}', '--lengths=300'], '256 positions'),
        (['eval.py', '--workdir={run}', '--position=ropee'], "eval.py: --position: unknown position scheme 'ropee'"),
        (['eval.py', '--workdir={run}', '--task=bucketsort'], "eval.py: --task: unknown task 'bucketsort'"),
        (['sweep.py', '--config=configs/common.py', '--workdir=nowhere'], 'sweep()'),
        (['compare.py', 'nowhere'], 'nowhere'),
    ],
)
def test_mistakes_after_training(command, words, finished, script):
    workdir, _ = finished
    before = files(workdir)
    done = script(*[word.format(run=workdir) for word in command], code=2)
    assert done.stderr.count('\n') == 1, done.stderr
    assert words in done.stderr
    assert files(workdir) == before


@pytest.mark.parametrize(
    ('extreme', 'words', 'steps'),
    [
        (('--config.optimizer.learning_rate=1e30',), 'the loss is nan, the gradient norm nan, the learning', (2,)),
        pytest.param(  # in the last update, which no loss tells of
            ('--config.train.steps=1', '--config.optimizer.learning_rate=1e30', '--config.optimizer.weight_decay=1e30'),
            'the parameters are not finite',
            (1, 1),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_that_diverges_stops(extreme, words, steps, script, tmp_path):
    for step in steps:
        done = script('train.py', *QUICK, *extreme, f'--workdir={tmp_path / "run"}', code=1)
        assert words in done.stderr
        assert f'at step {step}; it diverged - no checkpoint precedes it' in done.stderr
        assert json.loads((tmp_path / 'run' / 'summary.json').read_text())['status'] == 'diverged'
        assert 'Traceback' not in done.stderr


RECORDING = """
import json, os, runpy
from mha.run import sinks

class Recording(sinks.Sink):
    def note(self, *call):
        with open(os.environ['NOTES'], 'a') as file:
            file.write(json.dumps(call) + '\\n')

    def start(self, workdir, config, step):
        self.note('start', step)

    def write(self, step, values):
        self.note('write', step)

    def evaluated(self, curves, scores):
        self.note('evaluated')

    def close(self, finished):
        self.note('close', finished)

sinks.make = lambda given: [Recording()]
os.environ['NOTES'] = 'NOTES_HERE'
runpy.run_path('train.py', run_name='__main__')
"""


def test_a_run_that_diverges_closes_its_sinks(script, tmp_path):
    """As one that is not finished, once, after all that it has logged."""
    (tmp_path / 'train.py').write_text(RECORDING.replace('NOTES_HERE', str(tmp_path / 'notes')))
    extreme = '--config.optimizer.learning_rate=1e30'
    script(tmp_path / 'train.py', *QUICK, extreme, f'--workdir={tmp_path / "run"}', code=1)
    notes = [json.loads(line) for line in (tmp_path / 'notes').read_text().splitlines()]
    assert notes[0] == ['start', 0]
    assert notes[-1] == ['close', False]
    assert {name for name, *_ in notes[1:-1]} == {'write'}
