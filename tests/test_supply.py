"""What CI installs, and under which licences: requirements-lock.txt and docs/licences.md."""

import re
import runpy
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LICENCES = runpy.run_path(str(ROOT / '.ci' / 'licences.py'))
LOCKED = LICENCES['locked']()
ALLOWED = (
    r'(MIT|Apache|BSD|[023]-?Clause BSD|0BSD|PSF|Python Software Foundation|MPL|Mozilla Public|Zlib|CC0|CNRI|AFL)\b'
)
EXCEPTIONS = {'gramps': 'GPL'}
"""Packages under other licences, none of which runs with mha."""


def requirements(name):
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith('#')]


def test_the_lock_meets_the_requirements():
    for each in requirements('requirements.txt') + requirements('requirements-dev.txt'):
        assert each.specifier.contains(LOCKED[canonicalize_name(each.name)]), f'{each} - run make lock'


def test_everything_locked_has_a_hash_and_no_address():
    text = (ROOT / 'requirements-lock.txt').read_text()
    assert set(re.findall(r'^([\w.-]+)==[^\s;]+ \\\n    --hash=sha256:[0-9a-f]{64}', text, re.MULTILINE)) == set(LOCKED)
    assert '://' not in text
    assert not re.search('^-', text, re.MULTILINE)


def test_all_licences_are_listed_and_allowed():
    listed = dict(re.findall(r'^\| ([\w.-]+) \| (.+) \|$', LICENCES['PAGE'].read_text(), re.MULTILINE))
    del listed['package']
    assert listed.keys() == LOCKED.keys()
    needed = {canonicalize_name(each.name) for each in requirements('requirements.txt')}
    for package, licence in listed.items():
        for part in re.split(r' AND | OR |, |[()]', licence):
            allowed = EXCEPTIONS.get(package, ALLOWED)
            assert not part or re.match(allowed, part), f'{package}: {licence}'
        assert package not in EXCEPTIONS or package not in needed


def test_the_list_says_what_the_packages_say():
    installed = {canonicalize_name(each.metadata['Name']): each.version for each in metadata.distributions()}
    if not LOCKED.items() <= installed.items():
        pytest.skip('other versions are installed')
    assert LICENCES['page']() == LICENCES['PAGE'].read_text()
