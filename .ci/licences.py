"""Writes docs/licences.md: the licence of every package in requirements-lock.txt, as installed here, by its own words.

python .ci/licences.py
"""

import re
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'licences.md'
INTRODUCTION = """# Licences of all packages in requirements-lock.txt

Made by `make lock`. Packages of requirements.txt, and what they need, are installed with mha; the others serve
development alone. One of these, gramps, is under the GPL: mha reads the message catalogues that it installs, as data,
and neither imports nor distributes it.

| package | licence |
|---|---|
"""


def locked() -> dict[str, str]:
    """Version of every package in requirements-lock.txt."""
    return dict(re.findall(r'^([\w.-]+)==([^\s;]+)', (ROOT / 'requirements-lock.txt').read_text(), re.MULTILINE))


def licence(package: str) -> str:
    """Licence that an installed package states: an SPDX expression, a name, classifiers, or the title of a text."""
    about = metadata.metadata(package)
    name = (about.get('License') or '').strip()
    prefix = 'License :: OSI Approved :: '
    classifiers = [each.removeprefix(prefix) for each in about.get_all('Classifier') or [] if each.startswith(prefix)]
    short = name if '\n' not in name else ''
    return about.get('License-Expression') or short or ', '.join(classifiers) or name.partition('\n')[0] or 'not stated'


def page() -> str:
    """Text of docs/licences.md."""
    return INTRODUCTION + ''.join(f'| {package} | {licence(package)} |\n' for package in locked())


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')
