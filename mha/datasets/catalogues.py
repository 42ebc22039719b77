"""Default texts from the message catalogues of installed packages, which are found without importing these.

labelled   Django's messages in its languages: which language is this? A message and all its translations are in one
           split, by the sha256 of the English message.
pairs      German translations of the English messages of several packages.
"""

import collections
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from mha.datasets import catalogue_files
from mha.datasets.files import BY_HASH, row
from mha.datasets.preparation import Malformed, Row, Source
from mha.spec import UserError

PACKAGES = {'Django': '5.2.19', 'Trac': '1.6', 'gramps': '6.0.8', 'jupyterlab-language-pack-de-DE': '4.5.post3'}
"""Packages with the versions that are tested (requirements-dev.txt). Other versions are other data."""
MESSAGES = 240
"""Smallest number of messages of a language that is a class."""
BYTES = 30
"""Smallest size of a message without its placeholders, since words such as `Email` have no one language."""
_PLACEHOLDER = re.compile(r'%(\(\w+\))?[sd]|\{\w*\}|<[^>]*>')


def labelled() -> Source:
    """Source of messages, labelled by language. Of the varieties of a language, such as es and es_AR, the plain one is
    used, or the first. Left out are messages below `BYTES`, those equal to the English one, repetitions, those that two
    languages share, and languages with fewer than `MESSAGES` that remain."""
    files = _catalogues('Django')

    def rows() -> Iterator[Row | Malformed]:
        languages: dict[str, dict[str, str]] = collections.defaultdict(dict)  # the first message of each text
        for name, path in files.items():
            for message in filter(_is_example, _messages(path)):
                languages[_language(name)].setdefault(message.target, message.source)
        languages = {name: languages[name] for name in _without_varieties(languages)}
        count = collections.Counter(text for messages in languages.values() for text in messages)
        for name, messages in languages.items():
            own = {target: source for target, source in messages.items() if count[target] == 1}
            if len(own) >= MESSAGES:
                for target, source in own.items():
                    yield row(f'{name}: {source}', (target, name), key=source.encode())

    name, licence = _origin('Django')
    settings = f'languages {MESSAGES} {BYTES} {_PLACEHOLDER.pattern}'  # all that the choice of rows depends on
    return Source('labelled', files, rows, f'{BY_HASH} in English', f'message catalogues of {name}', licence, settings)


def pairs() -> Source:
    """Source of English messages and their German translations, except those that are the same."""
    files = {
        f'{package}/{name}': path
        for package in PACKAGES
        for name, path in _catalogues(package).items()
        if _language(name) in ('de', 'de_DE')
    }

    def rows() -> Iterator[Row | Malformed]:
        for name, path in files.items():
            for message in _messages(path):
                if message.source != message.target:
                    yield row(f'{name}:{message.line}', (message.source, message.target))

    names, licences = (', '.join(each) for each in zip(*map(_origin, PACKAGES), strict=True))
    return Source('pairs', files, rows, BY_HASH, f'message catalogues of {names}', licences, settings='messages')


def _catalogues(package: str) -> dict[str, Path]:
    """Compiled catalogues of an installed package, by path."""
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        wanted = f'{package}=={PACKAGES[package]}'
        raise UserError(
            f'the default data is in the package {package} - pip install {wanted}, or give your own with data='
        ) from None
    names = sorted(str(name) for name in distribution.files or () if name.match('locale/*/LC_MESSAGES/*.mo'))
    return {name: Path(str(distribution.locate_file(name))) for name in names}


def _origin(package: str) -> tuple[str, str]:
    """Name and version of a package, and its licence."""
    about: Any = metadata.metadata(package)
    classifiers = [name for name in about.get_all('Classifier', ()) if name.startswith('License ::')]
    licence = about.get('License-Expression') or (classifiers or ['not stated'])[0].split(' :: ')[-1]
    return f'{package} {about["Version"]}', licence


def _messages(path: Path) -> Iterator[catalogue_files.Message]:
    for message in catalogue_files.read(path.read_bytes(), compiled=True):
        if isinstance(message, catalogue_files.Message):
            yield message


def _language(name: str) -> str:
    return Path(name).parts[-3]


def _is_example(message: catalogue_files.Message) -> bool:
    words = _PLACEHOLDER.sub('', message.target).strip()
    return message.source != message.target and len(words.encode(errors='surrogateescape')) >= BYTES


def _without_varieties(languages: dict) -> list[str]:
    """Sorted languages, one variety of each; English is not one of them."""
    chosen: dict[str, str] = {}
    for name in sorted(languages):  # 'es' comes before 'es_AR'
        chosen.setdefault(name.split('_')[0], name)
    return sorted(name for language, name in chosen.items() if language != 'en')
