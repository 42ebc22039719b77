"""Evaluates a finished run again, at other lengths, from its workdir alone.

    python eval.py --workdir=runs/a --lengths=40,80,160 [--examples=512] [--position='pi(scale=4)|rope'] [--task='..']

Writes `<workdir>/evaluation_<lengths>_<n>-examples.csv` beside the run's own results. `--position` evaluates the same
weights under another position scheme, as interpolation and other methods of inference do, and `--task` on the task with
other arguments, or on any that has the same symbols and classes; their names join the file's. `--per_position` writes
`.._positions.csv` too: the accuracy of every symbol of the answer, and its 95 % interval.
"""

import dataclasses
import time

from absl import flags, logging
from flax import nnx

from configs import common
from mha import cli, spec, tasks
from mha.machine import cache, parallel
from mha.run import workdir
from mha.run.checkpoint import Checkpoints
from mha.run.experiment import Experiment, shapes
from mha.spec import UserError
from mha.views.report import runs, table

WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of a finished run.')
LENGTHS = flags.DEFINE_string(
    'lengths', None, 'Lengths such as 40,80,160 or 1-100 or 50-500:50; default: those of the config.'
)
EXAMPLES = flags.DEFINE_integer(
    'examples', None, 'Examples per length; default: as many as the config says, fewer of long ones.', lower_bound=1
)
POSITION = flags.DEFINE_string(
    'position', None, 'Position scheme to evaluate under, with the parameters of the trained one; default: that one.'
)
TASK = flags.DEFINE_string(
    'task', None, 'Task to evaluate on, with the symbols and classes of the trained one; default: that one.'
)
PER_POSITION = flags.DEFINE_bool('per_position', False, 'Write the accuracy per position of the answer, too.')
PAIRS = 2**34
"""Of tokens, that the examples of one length may have together unless asked for: one example of 131,072 tokens."""


def main() -> None:
    logging.set_verbosity(logging.ERROR)  # orbax reports every step of a restore
    cache.keep_programs()
    directory = cli.path('workdir', WORKDIR.value)
    config = workdir.load_config(directory)
    workdir.check_keys(directory, config, like=common.get_config().to_dict())
    parallel.use_cores(EXAMPLES.value or config['eval']['examples'])  # before a task puts its data on a device
    task = tasks.make(config['task'], causal=config['model']['causal'], **config['data'])
    lengths = LENGTHS.value or config['eval']['lengths']
    asked = config['eval']['examples']
    longest = task.num_tokens(spec.lengths(lengths, 'eval.lengths')[-1])
    few = 1 << max(PAIRS // longest**2, 1).bit_length() - 1  # a power of two: devices and batches divide it
    config['eval']['examples'] = EXAMPLES.value or min(asked, few)
    if not EXAMPLES.value and config['eval']['examples'] < asked:
        takes = f'{longest:,} tokens take long - --examples sets how many'
        print(f'note: {few} instead of {asked} examples per length, as {takes}')
    config['mesh'] = {'data': 1, 'model': 1}  # where it was trained does not matter
    config['train']['final_position'] = POSITION.value or config['train']['final_position']
    config['task'] = TASK.value or config['task']
    run = Experiment.build(config, eval_lengths=lengths)
    trained = dataclasses.replace(run, task=task)
    check_fits(run, trained)
    workdir.check_data(directory, task.sha256)
    if workdir.status(directory) == 'diverged':
        raise UserError(f'the run in {directory} diverged: there is nothing to evaluate')
    if not workdir.finished(directory):
        raise UserError(f'the run in {directory} is not finished - run its train.py command again first')
    workdir.check_writable(directory)

    checkpoints = Checkpoints(directory)
    if (last := checkpoints.latest()) != config['train']['steps']:
        found = 'no checkpoint' if last is None else f'only the checkpoint of step {last}'
        raise UserError(
            f'{directory} holds {found}, not that of its last step {config["train"]["steps"]} - remove its '
            'summary.json, and run its train.py command again'
        )
    state = checkpoints.restore(like=trained.state_shapes)
    checkpoints.close()
    clock = time.time()
    params = run.layout.fetch(state.evaluated)
    rows, positions = run.evaluate(params, run.survivors(params))
    seconds = time.time() - clock
    tokens = sum(row['examples'] * run.task.num_tokens(int(row['length'])) for row in rows)

    name = workdir.evaluation_name(run.eval_lengths, config['eval']['examples'], TASK.value, POSITION.value)
    path = directory / name
    workdir.write_rows(path, rows)
    written = [path]
    if PER_POSITION.value:
        written.append(path.with_name(f'{path.stem}_positions.csv'))
        workdir.write_rows(written[-1], positions)
    found = runs.read(directory, path.name)
    shown = [dataclasses.replace(each, config={**each.config, 'task': config['task']}) for each in found]
    print(f'\n{table.summarise(shown)}\n')
    print(f'{tokens:,} tokens in {seconds:.1f} s, compiling included: {tokens / seconds:,.0f} tokens/s')
    print(*written, sep='\n')


def check_fits(run: Experiment, trained: Experiment) -> None:
    """Raises `UserError` unless a model of the `trained` task can do that of `run`."""
    text = run.config['task']
    for what, one, other in (
        ('symbols', run.task.vocabulary, trained.task.vocabulary),
        ('classes', run.task.classes, trained.task.classes),
    ):
        if len(one) != len(other):
            raise UserError(f'task {text!r} has {len(one)} {what}, not the {len(other)} that the model was trained on')
        for new, old in zip(one, other, strict=True):
            if new != old:
                raise UserError(f'task {text!r} has {what} such as {new!r} where the model was trained on {old!r}')
    one, other = (shapes(nnx.to_pure_dict(nnx.state(each.final_shapes, nnx.Param))) for each in (run, trained))
    if one != other:
        raise UserError(
            f'task {text!r} has up to {run.max_len} tokens, not the {trained.max_len} that the parameters of position '
            f'{run.position!r} are for'
        )


if __name__ == '__main__':
    cli.run(main)
