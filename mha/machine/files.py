"""Files: JSON objects, and files that are written as a whole."""

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any

from mha.spec import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""Errors of a disk that takes no more."""


def read_json(path: Path) -> dict[str, Any]:
    """Object in a JSON file. Raises `UserError` if the file cannot be read or holds no object."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'cannot read {path}: {" ".join(str(error).split())}') from error
    if not isinstance(content, dict):
        raise UserError(f'cannot read {path}: it must hold one JSON object')
    return content


def replace(path: Path, text: str) -> None:
    """Writes a file. A crash leaves either the old file or the new one, and so does a full disk."""
    temporary = path.with_suffix('.tmp')
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names no file
