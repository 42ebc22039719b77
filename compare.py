"""Finished runs side by side: a table, curves, and one HTML page that opens offline.

    python compare.py runs/grid [more runs] [--output=runs/grid/report] [--metric=accuracy] [--evaluation=40,80]

Every argument is a run, or a directory with runs anywhere below it; links are followed. Runs that differ in nothing but
their seed share a row. Unfinished runs, and files that are not those of a run, are left out by name. `--evaluation`
compares what `eval.py` measured later. The report goes to `report/` in the first directory; that of a sweep's cells
goes to the sweep, and that of several runs that share no sweep needs an `--output`. A report of other runs is not
overwritten; one of the same place, or of some of the runs, is.
"""

import re
import sys
from pathlib import Path

from absl import flags

from mha import cli
from mha.spec import UserError
from mha.training.metrics import METRICS
from mha.views.report import comparison, page, table

OUTPUT = flags.DEFINE_string(
    'output', None, 'Where to write the report; default: report/ in the first directory, or in the sweep.'
)
EVALUATION = flags.DEFINE_string(
    'evaluation', None, 'A later evaluation by eval.py: its file name, or its lengths; default: that of training.'
)
METRIC = flags.DEFINE_enum('metric', 'auto', ['auto', *METRICS], 'What to compare; auto: the metric of the task.')


def default_output(places: list[Path], evaluation: str | None) -> Path:
    """`report/` in the first place, or in the sweep that all belong to; never inside one run of several. That of a
    later evaluation has its name."""
    name = f'report_{re.sub(r"[^a-zA-Z0-9=-]+", "_", evaluation)[:100]}' if evaluation else 'report'
    sweeps = {_sweep_of(place) for place in places}
    sweep = next(iter(sweeps))
    if len(sweeps) == 1 and sweep:
        return sweep / name
    if len(places) > 1 and (places[0] / 'config.json').exists():
        raise UserError(f'{places[0]} is one run of several - say where the report goes with --output=...')
    return places[0] / name


def _sweep_of(place: Path) -> Path | None:
    """The sweep that a place is, or whose cell or cells it is."""
    if place.name == 'cells' or place.parent.name == 'cells':
        return place.parent if place.name == 'cells' else place.parents[1]
    return place if (place / 'cells').is_dir() else None


def main(*paths: str) -> None:
    if not paths:
        raise UserError('name the runs to compare, such as: compare.py runs/grid')
    places = [Path(path).expanduser() for path in paths]
    found = comparison.compare(places, METRIC.value, EVALUATION.value)
    output = OUTPUT.value or str(default_output(places, EVALUATION.value))
    written = page.write(found, cli.path('output', output))
    if found.left_out:
        print(f'left out {comparison.unfinished(found.left_out)}', file=sys.stderr)
    print(table.text(found), '', *written, sep='\n')


main.takes_arguments = True  # pyright: ignore[reportFunctionMemberAccess]

if __name__ == '__main__':
    cli.run(main)
