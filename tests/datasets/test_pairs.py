import gzip
import itertools
import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from mha import datasets
from mha.datasets import catalogue_files, catalogues
from mha.spec import UserError


def installed():
    names = {distribution.name for distribution in metadata.distributions()}
    return {*catalogues.PACKAGES} <= names


PAIRS = [(f'sentence {i}', f'Satz {i}') for i in range(30)]


def read(corpus, split):
    columns = corpus.read(split)
    return [(one.decode(), other.decode()) for one, other in zip(columns['source'], columns['target'], strict=True)]


def everything(corpus):
    return sorted(itertools.chain(*(read(corpus, split) for split in datasets.SPLITS)))


def test_tsv(write):
    write({'a.tsv': '\ufeff' + '\r\n'.join(f'{one}\t{other}' for one, other in PAIRS)})
    corpus = datasets.pairs('a.tsv', strict=True)
    assert everything(corpus) == sorted(PAIRS)
    assert read(corpus, 'test')


def test_parallel_files(write):
    write({'a.en': '\n'.join(one for one, _ in PAIRS), 'a.de': ''.join(f'{other}\r\n' for _, other in PAIRS)})
    corpus = datasets.pairs('a.en,a.de', strict=True)
    assert everything(corpus) == sorted(PAIRS)
    assert [Path(name).name for name in corpus.facts['data_provenance'].split(', ')] == ['a.en', 'a.de']
    write({'a.de': '\n'.join(f'{other}!' for _, other in PAIRS)})
    assert datasets.pairs('a.en,a.de') != corpus


def test_parallel_files_of_splits(write):
    for split, pairs in {'train': PAIRS[:20], 'test': PAIRS[20:]}.items():
        write(
            {
                f'd/{split}.{name}': '\n'.join(side)
                for name, side in zip(('en', 'de'), zip(*pairs, strict=True), strict=True)
            }
        )
    corpus = datasets.pairs('d/*.en,d/*.de')
    assert (read(corpus, 'train'), read(corpus, 'test')) == (PAIRS[:20], PAIRS[20:])
    write({'d/more.de': 'mehr'})
    with pytest.raises(UserError, match=re.escape("'d/*.en' matches 2 files and 'd/*.de' 3 - they must be parallel")):
        datasets.pairs('d/*.en,d/*.de')


def test_lines_without_a_counterpart(write):
    write({'a.en': 'one\ntwo\nthree\n', 'a.de': 'eins\n\n'})
    corpus = datasets.pairs('a.en,a.de')
    assert everything(corpus) == [('one', 'eins')]
    assert corpus.facts['data_malformed_rows'] == ['a.en:2: an empty text', 'a.en:3: no such line in a.de']
    with pytest.raises(UserError, match=r'2 malformed rows: a.en:2: an empty text; a.en:3: no such line in a.de$'):
        datasets.pairs('a.en,a.de', strict=True)


def test_malformed_rows(write):
    write({'a.tsv': b'one\teins\none\ntwo\tzwei\tdos\n\ttest\n\xff\tx\nthree\tdrei\n'})
    facts = datasets.pairs('a.tsv').facts
    assert facts['data_malformed'] == 4
    assert facts['data_malformed_rows'] == [
        'a.tsv:2: 1 columns, not 2',
        'a.tsv:3: 3 columns, not 2',
        'a.tsv:4: an empty text',
    ]


def test_equal_sources_are_in_one_split(write):
    write({'a.tsv': ''.join(f'{one}\t{other} {i}\n' for one, other in PAIRS for i in range(3))})
    corpus = datasets.pairs('a.tsv')
    train, test = ({one for one, _ in read(corpus, split)} for split in datasets.SPLITS)
    assert test
    assert not train & test
    assert corpus.facts['data_duplicates_train'] + corpus.facts['data_duplicates_test'] == 60


def test_suffixes(write):
    write({'a.txt': 'text'})
    with pytest.raises(UserError, match=r'a.txt holds no pairs - they are in .tsv, .po or .mo files, or in two files'):
        datasets.pairs('a.txt')


# ----------------------------------------------------------------------------------------------------------- catalogues
CATALOGUE = r'''# A comment.
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\n"

#: place.py:1
msgid "plain"
msgstr "schlicht"

#, python-format
msgid ""
"two "
"lines\n"
msgstr "zwei Zeilen\n"
msgctxt "menu"
msgid "with \"context\"\t\\"
msgstr "mit \"Kontext\"\t\\"

#, fuzzy, c-format
#| msgid "before"
msgid "fuzzy"
msgstr "unsicher"

msgid "one day"
msgid_plural "%d days"
msgstr[0] "ein Tag"
msgstr[1] "%d Tage"

msgid "untranslated"
msgstr ""

#, fuzzy
#~ msgid "obsolete"
#~ msgstr "veraltet"

msgid "last"
msgstr "letzte"'''
MESSAGES = [
    ('plain', 'schlicht'),
    ('two lines\n', 'zwei Zeilen\n'),
    ('with "context"\t\\', 'mit "Kontext"\t\\'),
    ('one day', 'ein Tag'),
    ('%d days', '%d Tage'),
    ('last', 'letzte'),
]


@pytest.mark.parametrize('line_end', ['\n', '\r\n'])
def test_po(write, line_end):
    write({'de.po': CATALOGUE.replace('\n', line_end)})
    assert everything(datasets.pairs('de.po', strict=True)) == sorted(MESSAGES)


def test_mo_of_msgfmt(write, tmp_path):
    """`msgfmt` is the oracle, where it is installed."""
    write({'de.po': CATALOGUE})
    try:
        subprocess.run(['msgfmt', 'de.po', '-o', 'de.mo'], check=True, cwd=tmp_path)
    except FileNotFoundError:
        pytest.skip('msgfmt is not installed')
    assert everything(datasets.pairs('de.mo', strict=True)) == sorted(MESSAGES)


def test_compressed_catalogues(write):
    catalogue = b'msgid "Month"\nmsgstr "Monat"\n'
    write({'de.po': catalogue, 'packed/de.po.gz': gzip.compress(catalogue)})
    assert everything(datasets.pairs('de.po')) == everything(datasets.pairs('packed')) == [('Month', 'Monat')]


def test_po_and_mo_of_django_agree():
    """Both files of every language, except for messages that are fuzzy in one."""
    package = metadata.distribution('Django')
    for language in ('de', 'ja', 'ru', 'ar'):
        path = package.locate_file(f'django/conf/locale/{language}/LC_MESSAGES/django')
        po, mo = (
            {
                message[:2]
                for message in catalogue_files.read(type(path)(f'{path}.{suffix}').read_bytes(), suffix == 'mo')
            }
            for suffix in ('po', 'mo')
        )
        assert len(po) > 250
        assert po == mo


def test_one_plural_form(write):
    write({'ja.po': 'msgid "a day"\nmsgid_plural "%d days"\nmsgstr[0] "%d nichi"\n'})
    assert everything(datasets.pairs('ja.po')) == [('%d days', '%d nichi')]


def test_damaged_catalogues(write):
    write({'a.po': 'msgid "a"\nmsgstr "b"\nmsgid "never closed\nnonsense\nmsgstr "c"\n', 'b.mo': b'no catalogue'})
    facts = datasets.pairs('*.?o').facts
    assert facts['data_train_examples'] + facts['data_test_examples'] == 1
    places = [row.split(': ')[0] for row in facts['data_malformed_rows']]
    assert (facts['data_malformed'], places) == (4, ['a.po:3', 'a.po:4', 'a.po:5'])


def test_a_form_of_no_language(write):
    write({'a.po': f'msgid "a"\nmsgid_plural "b"\nmsgstr[0] "c"\nmsgstr[{"9" * 5000}] "d"\n'})
    assert datasets.pairs('a.po').facts['data_malformed_rows'] == [
        'a.po:4: neither a field, a string nor a comment of a catalogue'
    ]


@pytest.mark.skipif(not installed(), reason='needs the packages of requirements-dev.txt')
def test_german():
    """The default: messages in German, of which no source is in two splits."""
    corpus = datasets.pairs()
    train, test = (read(corpus, split) for split in datasets.SPLITS)
    assert len(train) > 2500
    assert len(test) > 250
    assert not {one for one, _ in train} & {one for one, _ in test}
    assert ('Monday', 'Montag') in train + test
    assert not [pair for pair in train + test if pair[0] == pair[1]]


def test_packages_that_are_missing(monkeypatch):
    monkeypatch.setattr(catalogues, 'PACKAGES', {'no-such-package': '1.0'})
    message = (
        'the default data is in the package no-such-package - pip install no-such-package==1.0, '
        'or give your own with data='
    )
    with pytest.raises(UserError, match=re.escape(message) + '$'):
        datasets.pairs()
