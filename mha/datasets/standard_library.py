"""Source code of Python's standard library, without tests: the default text, which every machine has."""

import platform
import sysconfig
from pathlib import Path

from mha.datasets.files import documents_in
from mha.datasets.preparation import Source
from mha.spec import UserError

NOT_TEXT = {'test', 'tests', 'idlelib', 'lib2to3', 'site-packages', 'dist-packages', '__pycache__'}
"""Directories of the standard library that are left out."""


def documents() -> Source:
    """Source of the files, by path below the library."""
    root = Path(sysconfig.get_paths()['stdlib'])
    paths = [path for path in root.rglob('*.py') if NOT_TEXT.isdisjoint(path.relative_to(root).parts[:-1])]
    files = {path.relative_to(root).as_posix(): path for path in paths if path.stat().st_size}
    if not files:
        raise UserError(f"this Python keeps no source of its standard library in {root} - give data='path/to/*.txt'")
    provenance = f'source of the standard library of Python {platform.python_version()}'
    return documents_in({name: files[name] for name in sorted(files)}, provenance, licence='PSF-2.0')
