"""Files in formats that several packages read."""

import json
from pathlib import Path
from typing import Any

from mha.spec import UserError


def read_json(path: Path) -> dict[str, Any]:
    """Object in a JSON file. Raises `UserError` if the file cannot be read or holds no object."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'cannot read {path}: {" ".join(str(error).split())}') from error
    if not isinstance(content, dict):
        raise UserError(f'cannot read {path}: it must hold one JSON object')
    return content
