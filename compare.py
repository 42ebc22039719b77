"""Comparison of finished runs: a table, curves, and one HTML page that works offline.

    python compare.py runs/grid [more runs] [--output=runs/grid/report] [--metric=accuracy] [--evaluation=40,80]
    python compare.py runs/grid --rows=position --columns=task         # one setting down, another across
    python compare.py runs/grid --best=learning_rate --pairs           # tuned rows, and which of them differ
    python compare.py runs/grid --published=ruoss2023                  # beside the numbers of a paper
    python compare.py runs/grid --only=task=bucket_sort --only=seed=0  # some of the runs
    python compare.py runs/grid --panels=heads --interval=bootstrap    # other panels and intervals

Every argument is a run, or a directory with runs below it at any depth; links are followed. Runs that differ only in
their seed share a row. Unfinished and unreadable runs are left out; their number and a few of their names are printed,
and the page lists all of them.

The report goes to `report/` in the first directory; for cells of one sweep, to `report/` in the sweep. For several runs
that are not of one sweep, `--output` is required. `--evaluation` compares a later evaluation by `eval.py`, named by its
lengths or its file name; that report goes to `report_<evaluation>/`. An existing report is overwritten only if it
compares the same runs, or some of them.
"""

from mha import cli  # isort: split

import contextlib
import dataclasses
import re
import sys
from pathlib import Path

from absl import flags

from mha.spec import UserError
from mha.training.metrics import METRICS
from mha.views.report import beside, comparison, heatmap, left_out, page, pivot, plots, published, ranks, table

OUTPUT = flags.DEFINE_string(
    'output', None, 'Directory of the report; default: report/ in the first directory, or in the sweep.'
)
EVALUATION = flags.DEFINE_string(
    'evaluation',
    None,
    'Later evaluation by eval.py: its file name or its lengths; default: the evaluation that ends training.',
)
BEST = flags.DEFINE_string('best', None, 'Setting of which each row keeps the best value, by the trained lengths.')
COLUMNS = flags.DEFINE_list('columns', [], 'Settings across, of a table of scores with --rows down.')
INTERVAL = flags.DEFINE_enum(
    'interval', 't', ['t', 'bootstrap'], 'Intervals over seeds in tables and figures: t, or bootstrap (BCa).'
)
ONLY = flags.DEFINE_multi_string('only', [], 'Condition that runs must meet: model.position=rope. Repeatable.')
PAIRS = flags.DEFINE_bool('pairs', False, 'Compare all pairs of rows of a task by paired t-tests over seeds.')
PANELS = flags.DEFINE_string(
    'panels', 'task', 'Setting of which each value has a panel of its own in figures; none: one panel.'
)
PUBLISHED = flags.DEFINE_string('published', None, f'Table of a paper beside ours: {", ".join(published.names())}.')
ROWS = flags.DEFINE_list('rows', [], 'Settings down, of a table of scores with --columns across.')
METRIC = flags.DEFINE_list(
    'metric',
    ['auto'],
    f'Metrics, the first orders the rows: {", ".join(METRICS)}; auto: that of the task, and exact match.',
)


def default_output(directories: list[Path], evaluation: str | None) -> Path:
    """Directory of the report: `report/`, or `report_<evaluation>/`, in the first directory or in the sweep that all
    belong to. Raises `UserError` if the first directory is one run and there are others."""
    name = f'report_{re.sub(r"[^a-zA-Z0-9=-]+", "_", evaluation)[:100]}' if evaluation else 'report'
    sweeps = {_sweep_of(directory) for directory in directories}
    sweep = next(iter(sweeps))
    if len(sweeps) == 1 and sweep:
        return sweep / name
    if len(directories) > 1 and (directories[0] / 'config.json').exists():
        raise UserError(f'{directories[0]} is one run of several - say where the report goes with --output=...')
    return directories[0] / name


def _sweep_of(directory: Path) -> Path | None:
    """Directory of the sweep, given that directory, its `cells/`, or a cell; None for others."""
    if directory.name == 'cells' or directory.parent.name == 'cells':
        return directory.parent if directory.name == 'cells' else directory.parents[1]
    return directory if (directory / 'cells').is_dir() else None


def main(*paths: str) -> None:
    if not all(paths) or not paths:
        raise UserError('name the runs to compare, such as: compare.py runs/grid')
    directories = cli.paths(paths)
    compared = comparison.compare(directories, METRIC.value or comparison.AUTO, EVALUATION.value, ONLY.value)
    panels = PANELS.value
    if panels not in ('task', 'none'):
        panels = compared.keys[compared.index_of(panels, 'setting in --panels')]
    compared = dataclasses.replace(compared, interval=INTERVAL.value, panels=panels)
    choices: list[str] = []
    if BEST.value:
        compared, choices = pivot.choose_best(compared, BEST.value)
    more, shown, sections = {}, [table.text(compared), *choices], []
    if ROWS.value or COLUMNS.value:
        crossed = pivot.pivot(compared, ROWS.value, COLUMNS.value)
        score = compared.ranges[-1]
        drawing = heatmap.figure(crossed, f'{compared.metric.title}, {score.name}')
        more |= {**pivot.files(crossed), 'pivot.svg': plots.as_svg(drawing), 'pivot.pdf': plots.as_pdf(drawing)}
        sections.append(pivot.section(crossed))
    if PAIRS.value:
        tests = pivot.pairs(compared)
        more['pairs.csv'] = pivot.pairs_csv(tests)
        shown += ['', pivot.pairs_text(tests)]
        with contextlib.suppress(UserError):  # too few rows, tasks or seeds for ranks
            diagram = ranks.diagram(compared)
            more |= {'ranks.svg': plots.as_svg(diagram), 'ranks.pdf': plots.as_pdf(diagram)}
    if PUBLISHED.value:
        paper = published.load(PUBLISHED.value)
        found = beside.pairs(compared, paper)
        more['published.csv'] = beside.as_csv(found)
        sections += beside.sections(compared, found, paper)
    output = OUTPUT.value or str(default_output(directories, EVALUATION.value))
    given = {'rows': ','.join(ROWS.value), 'columns': ','.join(COLUMNS.value), 'published': PUBLISHED.value}
    asked = [f'--{name}={value}' for name, value in given.items() if value] + ['--pairs'] * PAIRS.value
    written = page.write(compared, cli.path('output', output), more, sections, asked)
    shown += [line for section in sections for line in ('', section.title, table.section_text(section))]
    if compared.left_out:
        named = left_out.grouped(compared.left_out)
        where = f' - {written[-1]} lists all' if named.count > 1 else ''
        print(f'left out {named}{where}', file=sys.stderr)
    print(*shown, '', *written, sep='\n')


main.takes_arguments = True  # pyright: ignore[reportFunctionMemberAccess]

if __name__ == '__main__':
    cli.run(main)
