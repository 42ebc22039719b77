"""Evaluates a finished run again, every finished cell of a sweep, or a pretrained model, at other lengths.

    python eval.py --workdir=runs/a --lengths=40,80,160 [--examples=512] [--position='pi(scale=4)|rope'] [--task='..']

Only the directory of the run is read. The results go there, too, to `evaluation_<lengths>_<n>-examples.csv`.
`--position` evaluates the same weights under another position scheme, such as interpolation. `--task` evaluates on the
task with other arguments, or on another task with the same symbols and classes. Both are added to the name of the file,
and to its columns if they differ from the trained ones. `--per_position` also writes `.._positions.csv`: accuracy and
loss of each symbol of the answer, by its index, with 95 % intervals.

    python eval.py --workdir=runs/a --generate='def main(' [--max_length=200] [--temperature=0.8 --top_k=40 --top_p=0.9]
    python eval.py --workdir=runs/a --prompts=prompts.txt    # one prompt per line

A causal model continues a text: with its most likely tokens, at a temperature above 0 with drawn ones, or with the most
likely text that a search with `--beams=4` finds. A single text is printed while it is made; those of a file are printed
as lines of JSON. With `--log_probs`, so are the tokens and their log-probabilities under the model.

    python eval.py --workdir=gpt2 --task="lm('notes/*.txt', scored=128)" --lengths=128,1024   # or --generate='Dear '

A directory with a pretrained model (`mha.pretrained`: config.json and model.safetensors, as transformers saves them) is
a run on `lm`.

    python eval.py --workdir=runs/classification --classify='Bitte warten.'    # or --prompts=texts.txt

A run on `classification` labels a text: printed are its most likely labels with their probabilities.

    python eval.py --workdir=runs/tr --translate [--beams=4] [--examples=500] [--lengths=96] [--max_length=97]

A run on `translation` translates the test sentences of up to the longest of its lengths. Printed are BLEU and chrF by
sacrebleu, beside baselines without a model. The translations go to `translations_<..>.csv`, the scores to a file of
that name that ends in `.json`.

    python eval.py --workdir=runs/a --probe[='text'] [--lengths=20,40] [--against=runs/b] [--position='..'] [--ablate]

`probe.html` shows what every head attends to, when the model reads a text or examples of its task, by default one of
the longest trained length. `--against` shows another run beside it, or, given as a number of steps, an earlier
checkpoint of the same run. With `--ablate`, the run is also evaluated without each of its heads. `probe.npz` has the
arrays, `positions.svg` pictures of the position schemes.
"""

from mha import cli  # isort: split

import contextlib
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

from mha import pretrained, spec
from mha.machine import cache, parallel
from mha.probes import command, files
from mha.run import cells, checkpoint, finished, log, population, texts, translation, workdir
from mha.spec import UserError
from mha.training import metrics
from mha.views import encodings
from mha.views.probe import page
from mha.views.report import confusion, position_curves, runs, table

WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of a finished run or of a sweep.')
LENGTHS = flags.DEFINE_string(
    'lengths', None, 'Lengths such as 40,80,160 or 1-100 or 50-500:50; default: those of the config.'
)
EXAMPLES = flags.DEFINE_integer(
    'examples', None, 'Examples per length; default: as in the config, but fewer of long ones.', lower_bound=1
)
POSITION = flags.DEFINE_string(
    'position', None, 'Position scheme of the evaluation, with the same parameters as the trained one (default).'
)
TASK = flags.DEFINE_string(
    'task', None, 'Task of the evaluation, with the same symbols and classes as the trained one (default).'
)
PER_POSITION = flags.DEFINE_bool('per_position', False, 'Also write accuracy and loss of each symbol of the answer.')
GENERATE = flags.DEFINE_string('generate', None, 'Text that the model continues, instead of an evaluation.')
CLASSIFY = flags.DEFINE_string('classify', None, 'Text that the model labels, instead of an evaluation.')
TRANSLATE = flags.DEFINE_bool('translate', False, 'Translate the test sentences, instead of an evaluation.')
PROBE = flags.DEFINE_string('probe', None, 'Text whose attention a page shows; without a text, an example of the task.')
AGAINST = flags.DEFINE_string(
    'against', None, 'Another run that the page of --probe shows, or a step of which this run keeps the checkpoint.'
)
ABLATE = flags.DEFINE_bool('ablate', False, 'Also evaluate the run without each of its heads, for the page of --probe.')
PROMPTS = flags.DEFINE_string('prompts', None, 'File with a text to continue, or to label, in every line.')
MAX_LENGTH = flags.DEFINE_integer('max_length', 200, 'Number of generated tokens.', lower_bound=1)
TEMPERATURE = flags.DEFINE_float('temperature', 0.0, 'Divides the logits; 0: always the most likely token.')
TOP_K = flags.DEFINE_integer(
    'top_k', None, 'Number of tokens, the most likely ones, from which one is drawn; all if there are fewer.'
)
TOP_P = flags.DEFINE_float('top_p', None, 'Sum of the probabilities of the tokens from which one is drawn.')
BEAMS = flags.DEFINE_integer('beams', 1, 'Number of texts that a search for the most likely one keeps.', lower_bound=1)
UNTIL = flags.DEFINE_string('until', '', 'Text before which a generated text is cut.')
SEED = flags.DEFINE_integer('seed', 0, 'Seed of drawn tokens, and of the example of a probe.')
LOG_PROBS = flags.DEFINE_bool('log_probs', False, 'Also print the generated tokens and their log-probabilities.')
TEXTS = GENERATE, CLASSIFY, PROMPTS
GENERATION = MAX_LENGTH, TEMPERATURE, TOP_K, TOP_P, BEAMS, UNTIL, SEED
PAIRS = 2**34
"""Largest number of pairs of tokens in all examples of one length, unless `--examples` is given: one example of 131,072
tokens."""


def main() -> None:
    checkpoint.silence()
    cache.keep_programs()
    directory = cli.path('workdir', WORKDIR.value)
    if LENGTHS.value:
        spec.lengths(LENGTHS.value, '--lengths')  # a mistake is reported once, not for every cell
    if PROBE.value is not None:
        probe(directory)
        return
    for flag in AGAINST, ABLATE:
        if flag.present:
            raise UserError(f'--{flag.name} is for --probe - add it')
    translated = ('max_length', 'beams') if TRANSLATE.value else ()
    for_texts = [flag for flag in (*GENERATION, LOG_PROBS) if flag.name not in translated]
    idle = [flag.name for flag in for_texts if flag.present]
    if idle and GENERATE.value is None and PROMPTS.value is None:
        raise UserError(f'--{idle[0]} is for generated texts - add --generate or --prompts')
    if any(flag.value is not None for flag in TEXTS):
        of_texts(directory)
        return
    if TRANSLATE.value and PER_POSITION.value:
        raise UserError('--per_position is for an evaluation without --translate - choose one')
    work = translate if TRANSLATE.value else evaluate
    found, unfinished = cells.finished(directory) if cells.is_sweep(directory) else ([], 0)
    if unfinished:
        print(f'note: {unfinished} of {unfinished + len(found)} cells are not finished and are left out')
    parallel.use_cores(EXAMPLES.value or _examples(found or [directory]))  # before a task puts its data on a device
    if not found:
        work(directory)
        return
    failed = 0
    for cell in found:
        print(f'\n{cell}')
        try:
            work(cell)
        except UserError as error:
            print(f'{Path(sys.argv[0]).name}: {error}', file=sys.stderr)
            failed += 1
    if failed:
        raise UserError(f'{failed} of {len(found)} cells could not be evaluated, see above')


def _examples(runs: list[Path]) -> int:
    """Examples per length in the first config that can be read; a broken one is reported with its run."""
    for run in runs:
        if pretrained.is_checkpoint(run):
            return pretrained.EXAMPLES
        with contextlib.suppress(UserError, AttributeError, KeyError, TypeError, ValueError):
            return int(workdir.load_config(run)['eval']['examples'])
    return 1


def evaluate(directory: Path) -> None:
    """Evaluates one run, writes the results and prints its table."""
    run = pretrained.run_in(directory)
    lengths = LENGTHS.value or run.config['eval']['lengths']
    asked = run.config['eval']['examples']
    longest = run.experiment.task.num_tokens(spec.lengths(lengths, 'eval.lengths')[-1])
    few = 1 << max(PAIRS // longest**2, 1).bit_length() - 1  # a power of two: devices and batches divide it
    examples = EXAMPLES.value or min(asked, few)
    if not EXAMPLES.value and examples < asked:
        takes = f'{longest:,} tokens take long - --examples sets how many'
        print(f'note: {few} instead of {asked} examples per length, as {takes}')
    run = variant(run, lengths=lengths, examples=examples)
    workdir.check_writable(directory)

    clock = time.monotonic()
    experiment = run.experiment
    results = experiment.evaluate(run.params, experiment.survivors(run.params))
    rows = results.rows
    seconds = time.monotonic() - clock
    tokens = sum(row['examples'] * experiment.task.num_tokens(int(row['length'])) for row in rows)

    path = directory / workdir.evaluation_name(experiment.eval_lengths, examples, TASK.value, POSITION.value)
    if run.step is not None:  # the last checkpoint is damaged
        path = path.with_name(f'{path.stem}_step-{run.step}.csv')
    there, here = ({'task': of.config['task'], 'position': of.final_position} for of in (run.trained, experiment))
    others = {name: text for name, text in here.items() if text != there[name]}  # labels in reports
    workdir.write_rows(path, [{**row, **others} for row in rows])
    written = [path]
    if PER_POSITION.value:
        written.append(path.with_name(f'{path.stem}_positions.csv'))
        workdir.write_rows(written[-1], results.positions)
        written.append(written[-1].with_suffix('.svg'))
        position_curves.draw(written[-2], written[-1], loss=metrics.METRICS[experiment.task.metric].best == 'min')
    if results.confusions:
        written.append(path.with_name(f'{path.stem}_confusion.csv'))
        workdir.write_rows(written[-1], results.confusions)
        written.append(written[-1].with_suffix('.svg'))
        confusion.draw(written[-2], written[-1])
    print(f'\n{table.summarise(runs.of(directory, *run.record, path.name))}\n')
    print(f'evaluated under position {experiment.final_position}')
    print(f'{tokens:,} tokens in {seconds:.1f} s, compiling included: {log.per_second(tokens, seconds):,.0f} tokens/s')
    print(*written, sep='\n')


def translate(directory: Path) -> None:
    """Translates test sentences with one run, writes the translations and prints their scores."""
    run = variant(finished.load(directory), lengths=LENGTHS.value)
    workdir.check_writable(directory)
    run = of_one_member(run)
    limit = MAX_LENGTH.value if MAX_LENGTH.present else None
    made = translation.measure(run, beams=BEAMS.value, max_length=limit, examples=EXAMPLES.value)
    name = workdir.evaluation_name([made.length], len(made.pairs), TASK.value, POSITION.value)
    path = directory / f'translations_{BEAMS.value}-beams_{name.removeprefix("evaluation_")}'
    workdir.write_rows(path, made.rows())
    workdir.write_json(path.with_suffix('.json'), made.summary())
    print(made.table(), path, path.with_suffix('.json'), sep='\n')


def variant(run: finished.Finished, **options: Any) -> finished.Finished:
    """Same weights under the task and the position scheme of the flags."""
    try:
        return run.variant(position=POSITION.value, task=TASK.value, **options)
    except UserError as error:  # named by its flag instead of its config key
        for flag, key in (POSITION, 'train.final_position'), (TASK, 'task'):
            if flag.value and error.key == key:
                error.key = f'--{flag.name}'
        raise


def of_one_member(run: finished.Finished) -> finished.Finished:
    """Same run with the first member of its population that has not diverged, which a note names."""
    members = run.experiment.members
    run = run.surviving()
    if len(members) > 1:
        print(f'note: member {population.named(members[run.member])} of {len(members)}', file=sys.stderr)
    return run


def of_texts(directory: Path) -> None:
    """Prints what a model makes of texts: their continuations or, if it classifies, their labels."""
    given = [flag for flag in TEXTS if flag.value is not None]
    if len(given) > 1:
        raise UserError(f'--{given[0].name} and --{given[1].name} are two ways to give texts - choose one')
    if idle := [flag.name for flag in (LENGTHS, EXAMPLES, TASK, PER_POSITION, TRANSLATE) if flag.present]:
        raise UserError(f'--{idle[0]} is for an evaluation - leave it out, or leave out --{given[0].name}')
    run = one_run(directory)
    if POSITION.value:
        run = variant(run)
    several = given[0] is PROMPTS
    found = texts.lines(cli.path('prompts', PROMPTS.value)) if several else str(given[0].value)
    if given[0] is CLASSIFY or (several and run.task.one_class):
        texts.classify(run, found)
    else:
        texts.generate(run, found, LOG_PROBS.value, **{flag.name: flag.value for flag in GENERATION})


def probe(directory: Path) -> None:
    """Writes what the heads attend to, as arrays and as a page."""
    others = *(flag for flag in GENERATION if flag is not SEED), LOG_PROBS, PER_POSITION, TRANSLATE
    if idle := [flag.name for flag in (*TEXTS, *others) if flag.present]:
        raise UserError(f'--{idle[0]} does not go with --probe - leave one of them out')
    if EXAMPLES.present and not ABLATE.value:
        raise UserError('--examples goes with --probe only if heads are removed - add --ablate')
    first = variant(one_run(directory), lengths=LENGTHS.value)
    if ABLATE.value and LENGTHS.value and (more := len(spec.lengths(LENGTHS.value)[command.MOST_ABLATED :])):
        print(f'note: heads are removed at the first {command.MOST_ABLATED} lengths, not at the other {more}')
    second = command.second(AGAINST.value, directory, task=TASK.value) if AGAINST.value is not None else None
    workdir.check_writable(directory)
    recordings = command.recordings(first, second, PROBE.value or '', LENGTHS.value or '', SEED.value)
    asked = shlex.join(['python', 'eval.py', *(each.removesuffix('=') for each in sys.argv[1:])])
    without = command.ablated(first, LENGTHS.value or '', EXAMPLES.value) if ABLATE.value else []
    about = dict(task=first.config['task'], command=asked, ablations=without)
    path = files.write(directory / 'probe.npz', recordings, **about)
    written, pictures = encodings.write(directory, command.drawn_encodings(first, second))
    print(path, page.write(path, pictures), *written, sep='\n')


def one_run(directory: Path) -> finished.Finished:
    """Run in a directory that is no sweep; of a population, the first member that has not diverged."""
    if cells.is_sweep(directory):
        raise UserError(f'{directory} is a sweep - choose one of its runs, --workdir={directory / "cells"}/<name>')
    return of_one_member(pretrained.run_in(directory))


if __name__ == '__main__':
    cli.run(main, optional=('probe',))
