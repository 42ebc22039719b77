"""Evaluates a finished run again, at other lengths, from its workdir alone.

    python eval.py --workdir=runs/a --lengths=40,80,160 [--examples=512] [--position='pi(scale=4)|rope']

Writes `<workdir>/evaluation_<lengths>_<n>-examples.csv` beside the run's own results. `--position` evaluates the same
weights under another position scheme, as interpolation and other methods of inference do; its name joins the file's.
`--per_position` writes `.._positions.csv` too: the accuracy of every symbol of the answer, and its 95 % interval.
"""

import time
from pathlib import Path

from absl import flags, logging

from mha import cache, cli, workdir
from mha.checkpoint import Checkpoints
from mha.experiment import Experiment
from mha.report import runs, table
from mha.spec import UserError

WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of a finished run.')
LENGTHS = flags.DEFINE_string(
    'lengths', None, 'Lengths such as 40,80,160 or 1-100 or 50-500:50; default: those of the config.'
)
EXAMPLES = flags.DEFINE_integer(
    'examples', None, 'Examples per length; default: as many as the config says.', lower_bound=1
)
POSITION = flags.DEFINE_string(
    'position', None, 'Position scheme to evaluate under, with the parameters of the trained one; default: that one.'
)
PER_POSITION = flags.DEFINE_bool('per_position', False, 'Write the accuracy per position of the answer, too.')


def main() -> None:
    logging.set_verbosity(logging.ERROR)  # orbax reports every step of a restore
    cache.keep_programs()
    directory = Path(cli.required('workdir', WORKDIR.value))
    config = workdir.load_config(directory)
    lengths = LENGTHS.value or config['eval']['lengths']
    config['eval']['examples'] = EXAMPLES.value or config['eval']['examples']
    config['train']['final_position'] = POSITION.value or config['train']['final_position']
    run = Experiment.build(config, eval_lengths=lengths)
    workdir.check_data(directory, run.task.sha256)
    if not workdir.finished(directory):
        raise UserError(f'the run in {directory} is not finished - run its train.py command again first')

    _, state = run.init()
    checkpoints = Checkpoints(directory)
    state = checkpoints.restore(like=state)
    checkpoints.close()
    clock = time.time()
    rows, positions = run.evaluate(run.final_graphdef(), state.evaluated, run.survivors(state))
    seconds = time.time() - clock
    tokens = sum(row['examples'] * run.task.num_tokens(int(row['length'])) for row in rows)

    named = runs.compact(run.eval_lengths).replace(',', '_')
    if len(named) > 80:
        named = f'{len(run.eval_lengths)}-lengths-to-{run.eval_lengths[-1]}'
    under = f'_{workdir.file_name(POSITION.value)}' if POSITION.value else ''
    path = directory / f'evaluation_{named}_{config["eval"]["examples"]}-examples{under}.csv'
    workdir.write_rows(path, rows)
    written = [path]
    if PER_POSITION.value:
        written.append(path.with_name(f'{path.stem}_positions.csv'))
        workdir.write_rows(written[-1], positions)
    print(f'\n{table.summarise(runs.read(directory, path.name))}\n')
    print(f'{tokens:,} tokens in {seconds:.1f} s, compiling included: {tokens / seconds:,.0f} tokens/s')
    print(*written, sep='\n')


if __name__ == '__main__':
    cli.run(main)
