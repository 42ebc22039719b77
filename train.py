"""Trains one config and evaluates it inside and beyond the trained lengths.

    python train.py --config=configs/quickstart.py --workdir=runs/a [--config.model.position=alibi]

The same command resumes an interrupted run and prints the result of a finished one. With more `train.steps` it
continues a finished run, if the learning-rate schedule does not depend on their number. `--init_from=runs/b` starts
with the weights of another run, without the heads in `--config.model.pruned='0:1,3;2:0'`.
"""

from mha import cli  # isort: split

import contextlib
import functools
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

from configs import common
from mha.machine import cache, memory, parallel, signals
from mha.model import heads
from mha.run import checkpoint, checks, finished, sinks, workdir
from mha.run.build import build
from mha.run.experiment import at_once
from mha.run.log import Metrics, per_second
from mha.spec import UserError
from mha.training import optim
from mha.training.metrics import METRICS
from mha.training.step import FAULT
from mha.views.report import confusion, plots, runs, table

CONFIG = config_flags.DEFINE_config_file('config', None, 'Experiment: configs/<name>.py.')
DEBUG_NANS = flags.DEFINE_bool(
    'debug_nans', False, 'If a loss or gradient is not finite, name the operation that made the first NaN.'
)
INIT_FROM = flags.DEFINE_string('init_from', None, 'Finished run whose weights this run starts with.')
LOG_TO = flags.DEFINE_multi_string(
    'log_to', [], f'Where metrics also go, a spec: {", ".join(sinks.names())}. Repeatable.'
)
PROFILE = flags.DEFINE_bool('profile', False, 'Trace the first chunk of steps into <workdir>/profile.')
WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of the run; a run that is there is resumed.')


HISTORY = 'evaluations.csv'
"""File of the evaluations during training: a column `step`, then the columns of extrapolation.csv."""
HUGE = 1e6
"""Parameters above it are reported, though they are finite."""


def main() -> None:
    checkpoint.silence()
    started = time.monotonic()
    parallel.start()
    cache.keep_programs()

    # ---------------------------------------------------------------- Build: mistakes show before a file is written
    config = cli.required('config', CONFIG.value).to_dict()
    directory = cli.path('workdir', WORKDIR.value)
    parallel.use_cores(at_once(config['train']))
    say = print if parallel.first() else lambda *_: None
    if config['model']['layers'] >= 100:
        say(f'checking a model of {config["model"]["layers"]} layers')
    run = build(config)
    log_sinks = sinks.make(LOG_TO.value)

    def weights(directory: str) -> Any:
        run = finished.load(directory).pruned(config['model']['pruned'])
        pruned = run.config['model']['pruned']
        if heads.parse(pruned) > heads.parse(config['model']['pruned']):
            raise UserError(f'--init_from: the run in {directory} lacks heads - add --config.model.pruned={pruned!r}')
        return run.gated(config['train']['head_penalty']).params

    start = weights(INIT_FROM.value) if INIT_FROM.value else None
    if start is not None:
        run.check_weights(start)
    parallel.once(lambda: workdir.claim(directory, config, INIT_FROM.value))
    workdir.check_data(directory, run.task.sha256)
    workdir.check_subwords(directory, run.task.tokenizer)
    steps = config['train']['steps']
    if workdir.finished(directory) and workdir.load_config(directory)['train']['steps'] == steps:
        say(f'{directory} is finished:\n\n{table.summarise(runs.read(directory))}')
        return
    parallel.once(lambda: workdir.hold(directory))
    parallel.once(lambda: workdir.clean(directory))
    parallel.once(lambda: workdir.extend(directory, config))
    parallel.once(lambda: workdir.keep_subwords(directory, run.task.tokenizer))

    # ---------------------------------------------------------------- Start: new or restored state, compiled programs
    checkpoints = checkpoint.Checkpoints(directory)
    parallel.once(checkpoints.clean)
    restored = checkpoints.restore(run.state_shapes) if checkpoints.steps() else None
    step, make = (0, run.init) if restored is None else (int(restored.step), lambda: restored)
    init_from = workdir.started_from(directory)
    if init_from and not step:
        make = functools.partial(run.init_from, weights(init_from) if start is None else start)
    making = ThreadPoolExecutor(1).submit(make)  # at the same time, Python traces the training program
    compiler = ThreadPoolExecutor(1)  # a thread, so that Ctrl-C need not wait for the compiler
    summary = {
        'status': 'running',
        **finished.facts(run),
        **({'init_from': init_from} if init_from else {}),
    }
    workdir.write_json(directory / 'summary.json', summary)
    alone = len(run.members) == 1
    who = '' if alone else f' each, {len(run.members)} members'
    say(f'{config["task"]} with {run.position}: {summary["parameters"]:,} parameters{who}, {directory}')
    for line in run.task.corpus.described() if run.task.corpus else ():
        say(line)
    for note in run.notes():
        say(f'note: {note}')

    def diverge(what: str, at: int) -> None:
        workdir.write_json(directory / 'summary.json', summary | {'status': 'diverged', 'step': at})
        checkpoints.close()
        metrics.close(finished=False)
        kept = [each for each in checkpoints.steps() if each < at]
        last = f'the last good checkpoint is that of step {kept[-1]}' if kept else 'no checkpoint precedes it'
        raise SystemExit(f'{directory}: {what} at step {at}; it diverged - {last}')

    switch = steps - config['train']['final_steps']  # from this step on, the final position scheme is used
    final = step >= switch
    if step < steps:
        compiling = time.monotonic()
        # XLA mostly uses one core, so the evaluation is compiled at the same time.
        chunk = compiler.submit(run.chunk, final, meanwhile=run.evaluator.compile).result()
        resumed = f', resumes from step {step}' if step else ''
        say(f'started in {compiling - started:.1f} s, compiled in {time.monotonic() - compiling:.1f} s{resumed}')
    state = making.result()
    if step < steps:
        before = memory.used()
        say(
            f'memory: about {memory.shown(before + chunk.needed)}, {memory.shown(before)} of them before the first step'
        )
        if chunk.needed > memory.total():
            parallel.once(lambda: workdir.disclaim(directory))
            raise UserError(
                f'a training step takes {memory.shown(chunk.needed)} of a device, which has '
                f'{memory.shown(memory.total())} - choose {checks.less(run)}, or model.remat=true'
            )

    # ---------------------------------------------------------------- Train: one dispatch per chunk of steps
    metrics = Metrics(directory, step, log_sinks)
    parallel.once(lambda: metrics.start(config))
    optimizer = config['optimizer']
    rates = [
        optim.make_rate(optimizer['schedule'], steps, member.get('learning_rate', optimizer['learning_rate']))
        for member in run.members
    ]
    history = [row for row in workdir.read_rows(directory / HISTORY) if row['step'] <= step]
    if step < steps:
        log_every, save_every = config['train']['log_every_steps'], config['train']['checkpoint_every_steps']
        clock = time.monotonic()
        with (
            signals.delayed() as notice,
            parallel.progress(total=steps, initial=step, unit=' steps', desc='train') as bar,
        ):

            def first_nan(at: int) -> str:
                checkpoints.close()
                kept = [each for each in checkpoints.steps() if each < at]
                before = checkpoints.restore(run.state_shapes, kept[-1]) if kept else make()
                return run.first_nan(chunk(before, at - 1)[0], final)

            def rate(index: int, at: int) -> float:
                return float(np.asarray(rates[index](at - 1)))

            def log(at: int, count: int, means: dict) -> None:
                nonlocal clock
                means = jax.tree.map(np.asarray, means)
                fault, values = means.pop('fault'), means
                clock, before = time.monotonic(), clock
                for index, member in enumerate(run.members):
                    of_member = {name: float(of_all[index]) for name, of_all in values.items()}
                    of_member['steps_per_second'] = per_second(count, clock - before)
                    metrics.write(at, of_member, None if alone else member)
                    metrics.show(at, {'learning_rate': rate(index, at)}, None if alone else member)
                bar.update(count)
                finite = np.isfinite([values[name] for name in FAULT]).all(0)
                if not finite.any():
                    at, loss, norm = (fault[name][0] for name in ('step', *FAULT))
                    learning = f'learning rate {rate(0, at):.3g}'
                    if DEBUG_NANS.value:
                        print(f'first NaN: {first_nan(int(at))}', file=sys.stderr)
                    diverge(f'the loss is {loss:.4g}, the gradient norm {norm:.4g}, the {learning}', int(at))
                loss, accuracy = (values[name][finite].mean() for name in ('loss', 'accuracy'))
                mean_of = '' if alone else f', means of {finite.sum()} of {len(run.members)} members'
                bar.set_postfix_str(f'loss {loss:.3f}, accuracy {accuracy:.3f}{mean_of}')

            def evaluate(at: int, params: Any) -> None:
                rows = run.evaluate(params, run.survivors(params)).rows
                history.extend({'step': at, **row} for row in rows)
                if history:  # empty if all members have diverged, which the next log reports
                    workdir.write_rows(directory / HISTORY, history)
                for row in rows if alone else ():
                    metrics.show(at, {f'evaluation/length {row["length"]}': METRICS[run.task.metric].of(row)})

            def evaluate_unless_stopped(at: int, params: Any) -> None:
                with contextlib.suppress(KeyboardInterrupt), signals.delayed(interrupts=jax.process_count() == 1):
                    evaluate(at, params)

            def stopping() -> int:
                return parallel.largest(notice.received)

            evaluate_every = config['eval']['every_steps'] or steps
            if step and step % evaluate_every == 0 and all(row['step'] != step for row in history):
                evaluate_unless_stopped(step, run.layout.fetch(state.evaluated))  # it was interrupted
            waiting, profiling = None, PROFILE.value
            while step < steps:
                if step == switch and not final:
                    bar.write(f'from step {step} on with {run.final_position}')
                    final, chunk = True, compiler.submit(run.chunk, final=True).result()
                stop = switch if step < switch else steps
                due = (_next(step, every) for every in (log_every, save_every, evaluate_every))
                previous, step = step, min(*due, stop)
                if profiling:
                    jax.profiler.start_trace(directory / 'profile', create_perfetto_trace=True)
                state, means = chunk(state, step)
                if profiling:
                    jax.block_until_ready(means)
                    jax.profiler.stop_trace()
                    profiling = False
                if waiting:  # metrics are read one chunk late, while the device computes the next
                    log(*waiting)
                waiting = (step, step - previous, means)
                if step % save_every == 0 or step == steps:  # logged first, so that a diverged state is never saved
                    log(*waiting)
                    waiting = None
                    checkpoints.save(step, state)
                if step % evaluate_every == 0 and step < steps and not stopping():
                    evaluate_unless_stopped(step, run.layout.fetch(state.evaluated))
                if number := stopping():
                    if waiting:
                        log(*waiting)
                        checkpoints.save(step, state)
                    checkpoints.close()
                    metrics.close(finished=False)
                    cli.end(number, f'step {step} is saved')

    # ---------------------------------------------------------------- Evaluate inside and beyond the trained lengths
    params = run.layout.fetch(state.evaluated)
    survivors = run.survivors(params)
    if not survivors:
        diverge('no member has finite parameters' if len(run.members) > 1 else 'the parameters are not finite', step)
    largest = max(float(np.abs(leaf[survivors]).max(initial=0)) for leaf in jax.tree.leaves(params))
    if largest > HUGE:
        say(f'note: parameters reach {largest:.1e}: the training may have diverged')
    results = run.evaluate(params, survivors)
    rows = results.rows
    if config['eval']['every_steps']:
        workdir.write_rows(directory / HISTORY, [*history, *({'step': steps, **row} for row in rows)])
    checkpoints.close()  # waits for checkpoints that are still being written

    # ---------------------------------------------------------------- Show
    def conclude() -> None:
        diverged = [member for index, member in enumerate(run.members) if index not in survivors]
        workdir.write_rows(directory / 'extrapolation.csv', rows)
        workdir.write_json(directory / 'summary.json', summary | {'diverged': diverged})
        members = runs.read(directory)
        plots.run_curve(members, directory / 'extrapolation.svg')
        if results.confusions:
            workdir.write_rows(directory / 'confusion.csv', results.confusions)
            confusion.draw(directory / 'confusion.csv', directory / 'confusion.svg')
        scores = table.scores(members)
        ended = {'status': 'finished', 'diverged': diverged, **scores, 'seconds': time.monotonic() - started}
        if results.too_large:
            ended['not_evaluated'] = list(results.too_large)
        metrics.evaluated(rows, scores)  # first, because a finished run is left alone
        metrics.close()
        workdir.write_json(directory / 'summary.json', summary | ended)
        print(f'\n{table.summarise(members)}\n\n{directory / "extrapolation.csv"}, {directory / "extrapolation.svg"}')

    parallel.once(conclude)


def _next(step: int, every: int) -> int:
    """First multiple of `every` after `step`."""
    return (step // every + 1) * every


if __name__ == '__main__':
    cli.run(main, common.get_config)
