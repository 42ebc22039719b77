"""Catalogue of tasks on the command line: list them, describe one, show samples of it.

python -m mha.tasks                                          # all tasks, a line each
python -m mha.tasks 'name(argument=value)' --length=12       # one task described, and readable samples
python -m mha.tasks --docs                                   # writes docs/tasks.md
"""

import shutil
import sys
from pathlib import Path

from mha import cli, tasks
from mha.machine import cache
from mha.spec import UserError
from mha.views.catalogue import prose
from mha.views.catalogue import tasks as task_catalogue

sys.argv[0] = 'mha.tasks'
flags = cli.flags
LENGTH = flags.DEFINE_integer('length', 12, 'Length of the samples.', lower_bound=1, upper_bound=2048)
CAUSAL = flags.DEFINE_bool('causal', False, 'Show the task in the form for causal models.')
SAMPLES = flags.DEFINE_integer('samples', 5, 'Number of samples.', lower_bound=1, upper_bound=1000)
SEED = flags.DEFINE_integer('seed', 0, 'Seed of the samples.', lower_bound=0, upper_bound=2**32 - 1)
DOCS = flags.DEFINE_bool('docs', False, 'Write docs/tasks.md.')
FOLDER = Path(__file__).parents[2] / 'docs'


def main(text: str = '', *more: str) -> None:
    cache.keep_programs()
    if DOCS.value:
        if len(sys.argv) > 2:
            raise UserError('--docs describes all tasks, and takes nothing else')
        task_catalogue.write(FOLDER)
        print(FOLDER / 'tasks.md')
        return
    if more:
        raise UserError(f'one task at a time, not {1 + len(more)}')
    if not text:
        if len(sys.argv) > 1:
            raise UserError(f'{sys.argv[1]} is for samples of a task - name one, such as {tasks.names()[0]!r}')
        width = shutil.get_terminal_size((prose.WIDTH, 24)).columns
        print(task_catalogue.table(task_catalogue.entries(), width))
        return
    entry = task_catalogue.look(text, CAUSAL.value)
    print(task_catalogue.describe(entry, LENGTH.value, SAMPLES.value, SEED.value))


main.takes_arguments = True  # pyright: ignore[reportFunctionMemberAccess]

if __name__ == '__main__':
    cli.run(main)
