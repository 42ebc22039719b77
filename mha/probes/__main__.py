"""Study of the heads of finished runs: how many each has, how many it needs, and how alike they are.

    python -m mha.probes runs/heads [more runs] [--lengths=16,32] [--examples=64] [--output=runs/heads/heads]

Every argument is a run, a pretrained model, or a directory with some below it. Unfinished runs are left out. Written
are `heads.csv`, a row per run and length; `heads.md`, means over seeds; and `heads.svg`, measures against the number of
heads. Files of an earlier study are overwritten if its runs are among those of this one.
"""

from mha import cli  # isort: split

import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mha import pretrained
from mha.machine import cache, files, parallel
from mha.probes.study import Rows, study
from mha.run import cells, workdir
from mha.spec import UserError, flatten
from mha.spec import lengths as parse_lengths
from mha.views import heads
from mha.views.report import runs

flags = cli.flags
LENGTHS = flags.DEFINE_string(
    'lengths', None, 'Lengths such as 16,32; default: the longest of training and of the evaluation.'
)
EXAMPLES = flags.DEFINE_integer('examples', 64, 'Examples per length.', lower_bound=1)
OUTPUT = flags.DEFINE_string(
    'output', None, 'Directory of the study; default: heads/ in the one directory that is given.'
)
FILES = ('heads.csv', 'heads.md', 'heads.svg')


def main(*paths: str) -> None:
    cache.keep_programs()
    if not all(paths) or not paths:
        raise UserError('name the runs to study, such as: python -m mha.probes runs/heads')
    if LENGTHS.value:
        parse_lengths(LENGTHS.value, '--lengths')
    given = cli.paths(paths)
    directories = runs.find(given)
    if len(given) > 1 and not OUTPUT.value:
        raise UserError('several directories - say where the study goes with --output=...')
    output = cli.path('output', OUTPUT.value) if OUTPUT.value else given[0] / 'heads'
    check_ours(output, directories)
    done = [each for each in directories if pretrained.is_checkpoint(each) or cells.may_be_finished(each)]
    if len(done) < len(directories):
        print(f'note: {len(directories) - len(done)} of {len(directories)} runs are not finished and are left out')
    if not done:
        raise UserError('no run is finished - run the command that trains them again first')
    studied: list[tuple[runs.Run, Rows]] = []
    failed = 0
    for directory in parallel.progress(iterable=done, unit=' runs', desc='study'):
        try:
            studied += of_run(directory)
        except UserError as error:
            print(f'{sys.argv[0]}: {directory}: {error}', file=sys.stderr)
            failed += 1
        else:
            write_rows(output, studied)  # an interrupt loses only the run it stops
    if studied:
        print(*write(output, studied), sep='\n')
    if failed:
        raise UserError(f'{failed} of {len(done)} runs could not be studied, see above')


def of_run(directory: Path) -> Iterator[tuple[runs.Run, Rows]]:
    """Members of a run that have not diverged, each with its rows."""
    loaded = pretrained.run_in(directory)
    for member in loaded.experiment.survivors(loaded.params):
        run = dataclasses.replace(loaded, member=member)
        yield (
            runs.Run(directory, flatten(run.config), {}, {}),
            study(run, lengths=LENGTHS.value, examples=EXAMPLES.value),
        )


def check_ours(output: Path, directories: list[Path]) -> None:
    """Raises `UserError` if files of these names are no study, or one of other runs."""
    there = [output / name for name in FILES if (output / name).exists()]
    if not there:
        return
    try:
        known = {(output / row['run']).resolve() for row in files.read_csv(output / FILES[0])}
    except (UserError, KeyError) as error:
        raise UserError(f'{there[0]} is there already and is no study - choose another --output') from error
    if others := known - {directory.resolve() for directory in directories}:
        raise UserError(f'{output} holds a study of other runs, such as {min(others)} - choose another --output')


def write(output: Path, studied: Sequence[tuple[runs.Run, Rows]]) -> list[Path]:
    """Writes all files, and returns their paths."""
    rows, settings = write_rows(output, studied)
    files.write(output / FILES[1], heads.markdown(rows, settings))
    files.write(output / FILES[2], heads.svg(rows, settings))
    return [output / name for name in FILES]


def write_rows(output: Path, studied: Sequence[tuple[runs.Run, Rows]]) -> tuple[Rows, list[str]]:
    """Writes the rows so far, and returns them with the settings in which the runs differ."""
    settings, rows = runs.varying([run for run, _ in studied]), []
    for run, found in studied:
        path = os.path.relpath(run.path.resolve(), output.resolve())
        labels = {key: run.config.get(key) for key in dict.fromkeys(('task', *settings, 'seed'))}
        rows += [{'run': path, **labels, **row} for row in found]
    try:
        output.mkdir(parents=True, exist_ok=True)
        workdir.write_rows(output / FILES[0], rows)
    except OSError as error:
        raise UserError(f'cannot write to {output}: {error.strerror}') from error
    return rows, settings


main.takes_arguments = True  # pyright: ignore[reportFunctionMemberAccess]

if __name__ == '__main__':
    sys.argv[0] = 'mha.probes'
    cli.run(main)
