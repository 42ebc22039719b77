"""Pages that need no other file: jinja templates, with styles, scripts and data written into them.

Text reaches a page escaped by jinja, or as JSON without '<', '>' and '&'. `shared/` has the frame of all pages, and
the style and the script that they begin with.
"""

import functools
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
from jinja2.utils import htmlsafe_json_dumps

SHARED = Path(__file__).with_name('shared')


@functools.cache
def template(path: Path) -> jinja2.Template:
    """Template of a page. jinja takes as long to compile one as all else takes to write a small page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([path.parent, SHARED]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(path.name)


def own(*paths: Path) -> markupsafe.Markup:
    """Text of files of ours, to be written into a page as it is."""
    return markupsafe.Markup('\n'.join(path.read_text(encoding='utf-8').rstrip() for path in paths))


def data(value: Any) -> markupsafe.Markup:
    """JSON for a `<script type="application/json">`."""
    return htmlsafe_json_dumps(value, separators=(',', ':'), allow_nan=False)
