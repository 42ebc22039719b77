"""Files of a sweep that say which cells it has, and which of them failed: manifest.jsonl and failures.jsonl."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mha.run import fields

Overrides = Mapping[str, Any]


def read(sweep: Path) -> dict[str, Overrides]:
    """Overrides of all cells that have begun, by name."""
    found = fields.read_json_lines(sweep / 'manifest.jsonl', fields.MANIFEST)
    return {record['cell']: record['overrides'] for record in found}


def add(sweep: Path, cells: Mapping[str, Overrides], config: str) -> None:
    """Appends the cells that the manifest lacks. `config` is the text of the --config flag."""
    known = read(sweep)
    for name, overrides in cells.items():
        if name not in known:
            _append(sweep / 'manifest.jsonl', {'cell': name, 'config': config, 'overrides': overrides})


def failures(sweep: Path) -> dict[str, str]:
    """Last line of output of the cells that have failed, by name."""
    found = fields.read_json_lines(sweep / 'failures.jsonl', fields.FAILURES)
    return {record['cell']: record['error'][-1] if record['error'] else '' for record in found}


def add_failure(sweep: Path, name: str, code: int | None, tries: int, error: Sequence[str]) -> None:
    """Appends a failed cell, with its exit code, number of tries and last lines of output."""
    _append(sweep / 'failures.jsonl', {'cell': name, 'exit_code': code, 'tries': tries, 'error': list(error)})


def _append(path: Path, record: Mapping[str, Any]) -> None:
    half = path.exists() and not path.read_bytes().endswith(b'\n')  # a line that a crash left broken
    with path.open('a') as file:
        file.write('\n' * half + json.dumps(record) + '\n')
