"""Runs that a report leaves out: their names below a common folder, by the reason."""

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence

from mha.spec import escaped
from mha.views.report.runs import Run

MOST_REASONS, MOST_CHARACTERS = 4, 80
"""Largest numbers of reasons, and of characters of the names for each, in the short text; the page has all names."""


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Names of the runs left out, relative to `folder`, by reason; the most frequent reason comes first."""

    folder: str
    names: Mapping[str, Sequence[str]]

    @property
    def count(self) -> int:
        return sum(map(len, self.names.values()))

    def __str__(self) -> str:
        """One line with a few names: `'8 runs in runs/grid/cells: a, b and 5 more (not started); c (running)'`."""
        groups = list(self.names.items())
        listed = [f'{_few(names)} ({reason})' for reason, names in groups[:MOST_REASONS]]
        if rest := sum(len(names) for _, names in groups[MOST_REASONS:]):
            listed.append(f'{rest} more')
        return f'{self.count} run{"s" * (self.count > 1)} in {self.folder}: {"; ".join(listed)}'


def grouped(runs: Sequence[Run]) -> LeftOut:
    """Runs left out, by reason. A directory may hold several, such as the members of a population that diverged."""
    paths = [run.path for run in runs]
    if len({path.is_absolute() for path in paths}) > 1:
        paths = [path.absolute() for path in paths]
    folder = os.path.commonpath([path.parent for path in paths]) or '.'
    names: dict[str, dict[str, None]] = {}
    for path, run in zip(paths, runs, strict=True):
        names.setdefault(run.status, {})[escaped(os.path.relpath(path, folder))] = None
    frequent_first = sorted(names.items(), key=lambda group: -len(group[1]))
    return LeftOut(escaped(folder), {reason: list(group) for reason, group in frequent_first})


def _few(names: Sequence[str]) -> str:
    fitting = sum(width <= MOST_CHARACTERS for width in itertools.accumulate(len(name) + 2 for name in names)) or 1
    more = len(names) - fitting
    return ', '.join(names[:fitting]) + (f' and {more} more' if more else '')
