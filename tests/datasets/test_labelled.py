import gzip
import json
import re

import numpy as np
import pytest

from mha import datasets
from mha.datasets import catalogues
from mha.spec import UserError


def read(corpus):
    """Texts and their labels in both splits, sorted."""
    columns = [corpus.read(split) for split in datasets.SPLITS]
    return sorted(
        (text.decode(), corpus.labels[label])
        for each in columns
        for text, label in zip(each['text'], each['label'], strict=True)
    )


ROWS = [(f'text {i}', f'{"neg" if i % 3 else "pos"}') for i in range(40)]


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('a.csv', 'text,label\n' + ''.join(f'{text},{label}\n' for text, label in ROWS)),
        ('a.csv', '\ufefflabel,id,text\r\n' + ''.join(f'{label},7,"{text}"\r\n' for text, label in ROWS)),
        ('a.tsv', 'text\tlabel\n' + ''.join(f'{text}\t{label}\n' for text, label in ROWS)),
        ('a.tsv', '\ufefftext\tlabel\r\n\r\n' + ''.join(f'{text}\t{label}\r\n' for text, label in ROWS)),
        ('a.jsonl', '\n'.join(json.dumps({'label': label, 'text': text}) for text, label in ROWS)),
        ('a.csv.gz', gzip.compress(('text,label\n' + ''.join(f'{text},{label}\n' for text, label in ROWS)).encode())),
    ],
)
def test_tables(write, name, content):
    write({name: content})
    corpus = datasets.labelled(name, strict=True)
    assert read(corpus) == sorted(ROWS)
    assert corpus.labels == ('neg', 'pos')
    assert corpus.read('test')['label'].dtype == np.int32
    sizes = [len(corpus.read(split)['text']) for split in datasets.SPLITS]
    assert sizes == [corpus.facts[f'data_{split}_examples'] for split in datasets.SPLITS] == [37, 3]
    assert corpus.facts['data_split'] == 'one text in 10 is test data, by its sha256'


def test_folders(write):
    write({f'reviews/{label}/{i}.txt': text for i, (text, label) in enumerate(ROWS)})
    corpus = datasets.labelled('reviews', strict=True)
    assert read(corpus) == sorted(ROWS)
    assert corpus == datasets.labelled('reviews/**/*.txt')


@pytest.mark.parametrize('held_out', ['test', 'validation', 'dev'])
def test_splits_by_name(write, held_out):
    write({f'd/train/{label}/{i}.txt': text for i, (text, label) in enumerate(ROWS)})
    write({f'd/{held_out}/neg/0.txt': 'held out', f'd/{held_out}/train-ish/1.txt': 'label like a split'})
    corpus = datasets.labelled('d')
    assert [*corpus.read('test')['text']] == [b'held out', b'label like a split']
    assert corpus.facts['data_train_examples'] == 40
    assert corpus.facts['data_split'] == 'by the names of the files'
    assert corpus.labels == ('neg', 'pos', 'train-ish')


def test_splits_of_tables(write):
    write({'train-1.csv': 'text,label\na,x\na,x\nb,y\n', 'test.csv': 'text,label\na,x\nc,y\nc,y\n'})
    write({'valid.csv': 'text,label\nunused,x\n'})
    corpus = datasets.labelled('*.csv')
    assert [*corpus.read('test')['text']] == [b'a', b'c', b'c']
    duplicates = {key: value for key, value in corpus.facts.items() if 'duplicates' in key}
    assert duplicates == {'data_duplicates_train': 1, 'data_duplicates_test': 1, 'data_duplicates_across': 1}
    write({'other.csv': 'text,label\nb,x\n'})
    with pytest.raises(UserError, match=r'other.csv is named neither train nor test, as other files are'):
        datasets.labelled('*.csv')


def test_equal_texts_are_in_one_split(write):
    rows = [('same text', label) for label in 'xyz' * 20] + [(f'text {i}', 'x') for i in range(40)]
    write({'a.csv': 'text,label\n' + ''.join(f'{text},{label}\n' for text, label in rows)})
    corpus = datasets.labelled('a.csv')
    train, test = ({*corpus.read(split)['text']} for split in datasets.SPLITS)
    assert test
    assert not train & test
    assert corpus.facts['data_duplicates_across'] == 0
    assert corpus.facts['data_duplicates_train'] + corpus.facts['data_duplicates_test'] == 59


def test_names_of_columns(write):
    write({'a.csv': 'body,stars\n' + ''.join(f'{text},{label}\n' for text, label in ROWS)})
    assert read(datasets.labelled('a.csv', text='body', label='stars')) == sorted(ROWS)
    message = "a.csv has no column 'text'; it has body, stars - name two of them by text= and label="
    with pytest.raises(UserError, match=re.escape(message) + '$'):
        datasets.labelled('a.csv')
    write({'b.csv': '"two\nlines",label\n'})
    with pytest.raises(UserError, match=r"^b.csv has no column 'text'; it has two lines, label - .*"):
        datasets.labelled('b.csv')
    write({'c.csv': 'text,label,text\na,x,b\n'})
    with pytest.raises(UserError, match=r"^c.csv has several columns 'text' - rename all but one$"):
        datasets.labelled('c.csv')


EVIL = {
    'quoted newlines': ('a.csv', 'text,label\n"two\nlines",x\n"say ""hi""",y\n', ['two\nlines', 'say "hi"'], []),
    'columns': ('a.csv', 'text,label\nok,x\none\n"a\nb",x,7\nok,y\n', ['ok', 'ok'], [3, 4]),
    'bad UTF-8': ('a.csv', b'text,label\nok,x\n\xff\xfe,x\nh\xc3\xbc,y\n', ['ok', 'hü'], [3]),
    'empty text': ('a.csv', 'text,label\nok,x\n,x\n" ",x\nlast,\n', ['ok'], [3, 4, 5]),
    'NUL': ('a.csv', b'text,label\na\x00b,x\n\x00,y\n', ['a\0b', '\0'], []),
    'never closed': ('a.csv', 'text,label\nok,x\n"open,x\n' + 'y,x\n' * 3, ['ok'], [3]),
    'json': ('a.jsonl', '{"text": "ok", "label": 3}\n{"text"\n[1]\n{"text": "a"}\n', ['ok'], [2, 3, 4]),
    'json texts': ('a.jsonl', '{"text": 1, "label": "x"}\n\n{"text": "ok", "label": 0.5}', ['ok'], [1]),
    'no number': ('a.jsonl', '{"text": "ok", "label": NaN}\n{"text": "ok", "label": 1}\n{"text": NaN}', ['ok'], [1, 3]),
    'no label': ('a.jsonl', '{"text": "a", "label": true}\n{"text": "b", "label": 1e999}', [], [1, 2]),
    'half a character': ('a.jsonl', '{"text": "\\ud800", "label": "x"}\n{"text": "ok", "label": "x"}', ['ok'], [1]),
    'nesting': ('a.jsonl', '{"text": "ok", "label": "x"}\n' + '[' * 100_000, ['ok'], [2]),
    'quotes in tsv': ('a.tsv', 'text\tlabel\n"open\tx\nb\ty\n', ['"open', 'b'], []),
    'carriage returns': ('a.tsv', 'text\tlabel\r\na\rb\tx\r\n', ['a\rb'], []),
    'huge line': ('a.tsv', f'text\tlabel\n{"long " * 10**6}\tx\n', ['long ' * 10**6], []),
}  # fmt: skip


@pytest.mark.parametrize('case', EVIL)
def test_malformed_rows_are_named(write, case):
    name, content, texts, bad = EVIL[case]
    write({name: content, 'more.csv': 'text,label\n' + ''.join(f'more {i},x\n' for i in range(20))})
    corpus = datasets.labelled('*.*')
    assert [text for text, _ in read(corpus) if not text.startswith('more ')] == sorted(texts)
    assert corpus.facts['data_malformed'] == len(bad)
    assert [row.split(': ')[0] for row in corpus.facts['data_malformed_rows']] == [f'{name}:{line}' for line in bad]
    if bad:
        with pytest.raises(UserError, match=rf'^{len(bad)} malformed rows: {name}:{bad[0]}: '):
            datasets.labelled('*.*', strict=True)
    else:
        datasets.labelled('*.*', strict=True)


def test_labels_that_differ_in_case(write):
    write({'a.csv': 'text,label\n' + ''.join(f'text {i},{"Pos" if i % 2 else "pos"}\n' for i in range(20))})
    corpus = datasets.labelled('a.csv')
    assert corpus.labels == ('Pos', 'pos')
    assert corpus.described()[-1] == 'note: labels that differ only in case: Pos, pos'


def test_files_without_a_folder(write):
    write({f'd/{label}/{i}.txt': text for i, (text, label) in enumerate(ROWS)} | {'d/readme.txt': 'read me'})
    facts = datasets.labelled('d').facts
    assert facts['data_malformed_rows'] == ['readme.txt:1: a file in no folder, which would be its label']


def test_nothing_usable(write):
    write({'a.csv': 'text,label\n,x\n'})
    with pytest.raises(UserError, match=r'a.csv has no training example: a.csv:2: an empty text$'):
        datasets.labelled('a.csv')
    write({'b.csv': 'text,label\n'})
    with pytest.raises(UserError, match=r'b.csv has no training example$'):
        datasets.labelled('b.csv')
    with pytest.raises(UserError, match=r'^labelled: data must be a string, not 5$'):
        datasets.labelled(5)


def test_unreadable_files(write, tmp_path):
    write({'a.csv.gz': b'not compressed'})
    with pytest.raises(UserError, match=r'cannot read \S+/a.csv.gz: Not a gzipped file'):
        datasets.labelled('a.csv.gz')
    (tmp_path / 'b.csv').symlink_to('b.csv')
    with pytest.raises(UserError, match=r'cannot read \S+/b.csv: Too many levels of symbolic links'):
        datasets.labelled('b.csv')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('text,label\na,x\n'.encode('utf-16'), 'UTF-16 - save it as UTF-8'),
        (b'\xfe\xff\0t', 'UTF-16 - save it as UTF-8'),
        (gzip.compress(b'text,label\na,x\n', mtime=0), 'compressed by gzip - let its name end in .gz'),
    ],
)
def test_other_encodings_are_named(write, tmp_path, content, message):
    write({'a.csv': content})
    with pytest.raises(UserError, match=f'^{tmp_path}/a.csv is {message}$'):
        datasets.labelled('a.csv')


def test_name_depends_on_the_columns(write):
    write({'a.csv': 'text,label,other\n' + ''.join(f'text {i},x,{i}\n' for i in range(20))})
    one, two = datasets.labelled('a.csv'), datasets.labelled('a.csv', label='other')
    assert one != two
    assert (len(one.labels), len(two.labels)) == (1, 20)


def test_languages():
    """The default: sentences of Django's catalogues, no text of which is in two languages or splits."""
    corpus = datasets.labelled()
    train, test = (corpus.read(split) for split in datasets.SPLITS)
    assert {'de', 'fr', 'ja', 'ru'} < {*corpus.labels}
    assert len(train['text']) > 10 * len(test['text'])
    texts = [*train['text'], *test['text']]
    assert len({*texts}) == len(texts)
    counts = np.bincount(np.concatenate([train['label'], test['label']]))
    assert counts.min() >= 240
    assert corpus.facts['data_provenance'].startswith('message catalogues of Django 5.')
    assert corpus.facts['data_licence'] == 'BSD-3-Clause'


def test_described(write, tmp_path):
    write({'a.csv': 'text,label\n,x\n' + ''.join(f'{text},{label}\n' for text, label in [*ROWS, ROWS[0]])})
    assert datasets.labelled('a.csv').described() == [
        f'data: {tmp_path}/a.csv; licence not stated',
        '38 train (255 bytes) and 3 test (21 bytes), 2 labels: one text in 10 is test data, by its sha256',
        'duplicates: 1 in train, 0 in test, 0 test texts also in train',
        'note: 1 malformed rows are left out: a.csv:2: an empty text',
    ]


@pytest.mark.parametrize('rule', [('MESSAGES', 300), ('BYTES', 40), ('_PLACEHOLDER', re.compile('x'))])
def test_another_choice_of_languages_is_other_data(monkeypatch, rule):
    before = catalogues.labelled().sha256()
    monkeypatch.setattr(catalogues, *rule)
    assert catalogues.labelled().sha256() != before
