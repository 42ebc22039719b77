"""Files of a sweep that say which cells it has, and which of them failed: manifest.jsonl and failures.jsonl."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Overrides = Mapping[str, Any]


def read(sweep: Path) -> dict[str, Overrides]:
    """Overrides of all cells that have begun, by name."""
    return {record['cell']: record['overrides'] for record in _lines(sweep / 'manifest.jsonl', 'cell', 'overrides')}


def add(sweep: Path, cells: Mapping[str, Overrides], config: str) -> None:
    """Appends the cells that the manifest lacks. `config` is the text of the --config flag."""
    known = read(sweep)
    for name, overrides in cells.items():
        if name not in known:
            _append(sweep / 'manifest.jsonl', {'cell': name, 'config': config, 'overrides': overrides})


def failures(sweep: Path) -> dict[str, str]:
    """Last line of output of the cells that have failed, by name."""
    found = _lines(sweep / 'failures.jsonl', 'cell', 'error')
    return {record['cell']: record['error'][-1] if record['error'] else '' for record in found}


def add_failure(sweep: Path, name: str, code: int | None, tries: int, error: Sequence[str]) -> None:
    """Appends a failed cell, with its exit code, number of tries and last lines of output."""
    _append(sweep / 'failures.jsonl', {'cell': name, 'exit_code': code, 'tries': tries, 'error': list(error)})


def _append(path: Path, record: Mapping[str, Any]) -> None:
    half = path.exists() and not path.read_bytes().endswith(b'\n')  # a line that a crash left broken
    with path.open('a') as file:
        file.write('\n' * half + json.dumps(record) + '\n')


def _lines(path: Path, *keys: str) -> Iterator[dict[str, Any]]:
    """Records that have these keys. A broken line, as a crash leaves it, is skipped."""
    for line in path.read_text(errors='replace').splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        kinds = {'cell': str, 'overrides': dict, 'error': list}
        if isinstance(record, dict) and all(isinstance(record.get(key), kinds[key]) for key in keys):
            yield record
