"""Finished runs side by side: a table, curves, and one HTML page that opens offline.

    python compare.py runs/grid [more runs] [--output=runs/grid/report] [--metric=accuracy] [--evaluation=40,80]

Every argument is a run, or a directory with runs anywhere below it. Runs that differ in nothing but their seed share a
row; unfinished runs are left out. A report of other runs is not overwritten; one of the same place, or of some of the
runs, is.
"""

import sys
from pathlib import Path

from absl import flags

from mha import cli
from mha.spec import UserError
from mha.views.report import page, table

OUTPUT = flags.DEFINE_string(
    'output', None, 'Where to write the report; default: report/ in the first one, or in the sweep.'
)
EVALUATION = flags.DEFINE_string(
    'evaluation',
    None,
    'Compare a later evaluation by eval.py: its file name, or its lengths; default: that of training.',
)
METRIC = flags.DEFINE_enum(
    'metric',
    'auto',
    ['auto', *table.METRICS],
    'What to compare; auto: the metric of the task (accuracy or exact_match), and for text the loss in bits per byte.',
)


def default_output(places: list[Path]) -> Path:
    """`report/` in the first place, or in the sweep that all belong to; never inside one run of several."""
    sweeps = {_sweep_of(place) for place in places}
    sweep = next(iter(sweeps))
    if len(sweeps) == 1 and sweep:
        return sweep / 'report'
    if len(places) > 1 and (places[0] / 'config.json').exists():
        raise UserError(f'{places[0]} is one run of several - say where the report goes with --output=...')
    return places[0] / 'report'


def _sweep_of(place: Path) -> Path | None:
    """The sweep that a place is, or whose cell it is."""
    if (place / 'config.json').exists():
        return place.parents[1] if place.parent.name == 'cells' else None
    return place if (place / 'cells').is_dir() else None


def main(*paths: str) -> None:
    if not paths:
        raise UserError('name the runs to compare, such as: compare.py runs/grid')
    places = [Path(path).expanduser() for path in paths]
    comparison = table.compare(places, METRIC.value, EVALUATION.value)
    written = page.write(comparison, cli.path('output', OUTPUT.value or str(default_output(places))))
    if comparison.left_out:
        print(f'left out {table.unfinished(comparison.left_out)}', file=sys.stderr)
    print(table.text(comparison), '', *written, sep='\n')


main.takes_arguments = True  # pyright: ignore[reportFunctionMemberAccess]

if __name__ == '__main__':
    cli.run(main)
