"""Finished runs side by side: a table, curves, and one HTML page that opens offline.

    python compare.py runs/grid [more runs] [--output=runs/grid/report] [--metric=accuracy]

Every argument is a run, or a directory with runs anywhere below it. Runs that differ in nothing but their seed share a
row; unfinished runs are left out. A report of other runs is not overwritten; one of the same place, or of some of the
runs, is.
"""

import sys

from absl import flags

from mha import cli
from mha.spec import UserError
from mha.views.report import page, table

OUTPUT = flags.DEFINE_string('output', None, 'Where to write the report; default: report/ in the first argument.')
METRIC = flags.DEFINE_enum(
    'metric',
    'auto',
    ['auto', *table.METRICS],
    'What to compare; auto: the metric of the task (accuracy or exact_match), and for text the loss in bits per byte.',
)


def main(*paths: str) -> None:
    if not paths:
        raise UserError('name the runs to compare, such as: compare.py runs/grid')
    comparison = table.compare([cli.path('path', path) for path in paths], METRIC.value)
    written = page.write(comparison, cli.path('output', OUTPUT.value or f'{paths[0]}/report'))
    if comparison.left_out:
        print(f'left out {table.unfinished(comparison.left_out)}', file=sys.stderr)
    print(table.text(comparison), '', *written, sep='\n')


main.takes_arguments = True  # pyright: ignore[reportFunctionMemberAccess]

if __name__ == '__main__':
    cli.run(main)
