"""Small files: those that are refused, and what is written comes back."""

import csv
import json
import os
import re

import pytest

from mha.machine import files
from mha.spec import UserError


@pytest.mark.parametrize(
    ('make', 'reason'),
    [
        (os.mkfifo, 'it is no regular file'),
        (os.mkdir, 'it is no regular file'),
        (lambda path: os.symlink('/dev/zero', path), 'it is no regular file'),
        (lambda path: os.symlink(path, path), 'Too many levels of symbolic links'),
        (lambda path: None, 'No such file or directory'),
        (lambda path: path.write_bytes(b'\xff\xfe{'), "'utf-8' codec can't decode"),
        (lambda path: (path.touch(), os.truncate(path, files.LARGEST + 1)), 'it has 268,435,457 bytes, more than'),
        (lambda path: path.write_text('[' * 10**5), 'recursion'),
        (lambda path: path.write_text('{"a": ' + '1' * 10**5 + '}'), 'Exceeds the limit'),
        (lambda path: path.write_text('{"a": {"b": 1, "b": 2}}'), 'an object has a key twice'),
        (lambda path: path.write_text('[1]'), 'it must hold one JSON object'),
    ],
)
def test_what_is_no_json_file_is_refused(tmp_path, make, reason):
    """Without opening what may never end, and by its name."""
    make(tmp_path / 'a.json')
    with pytest.raises(UserError, match=f'^cannot read {re.escape(str(tmp_path / "a.json"))}: .*{reason}'):
        files.read_json(tmp_path / 'a.json')


def test_byte_order_marks_and_line_breaks(tmp_path):
    (tmp_path / 'a.json').write_bytes(b'\xef\xbb\xbf{"a":\r\n 1}')
    assert files.read_json(tmp_path / 'a.json') == {'a': 1}
    (tmp_path / 'a.csv').write_bytes(b'\xef\xbb\xbfa,b\r\n1,2\r\n\r\n')
    assert files.read_csv(tmp_path / 'a.csv') == [{'a': '1', 'b': '2'}]


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('a,a\n1,2\n', 'a column is there twice'),
        ('a,b\n1\n', 'record 1 has 1 fields, not 2'),
        ('a,b\n1,2\n1,2,3\n', 'record 2 has 3 fields, not 2'),
        ('a,b\n1,2\n1,25', 'it is cut off, its last line does not end'),
        ('a\n' + 'x' * 200_000 + '\n', 'field larger than field limit'),
    ],
)
def test_tables_that_are_refused(tmp_path, text, reason):
    (tmp_path / 'a.csv').write_text(text)
    limit = csv.field_size_limit(131_072)  # which readers of corpora raise
    try:
        with pytest.raises(UserError, match=f'a.csv: {reason}'):
            files.read_csv(tmp_path / 'a.csv')
    finally:
        csv.field_size_limit(limit)


def test_no_spreadsheet_computes_texts(tmp_path):
    """Formulas get a quote, which reading takes away again; numbers and a dash stay as they are."""
    texts = ['=1+1', '+a', '-a b', '@x', '\t=1', ' =1', "'=1", "''-a"]
    plain = ['-', '-1', '+1e-3', "'a'", 'a=1', '', '\r\n', '"a", b', 'rope|=']
    records = [{'=head': text, 'number': -0.5} for text in (*texts, *plain)]
    text = files.csv_text(records)
    files.write(tmp_path / 'a.csv', text)
    found = [row[0] for row in csv.reader(text.splitlines(keepends=True))]
    assert found == ["'=head", *(f"'{text}" for text in texts), *plain]
    assert [record['=head'] for record in files.read_csv(tmp_path / 'a.csv')] == [*texts, *plain]
    assert text.count('"-0.5"\n') == len(records)
    assert sorted(tmp_path.iterdir()) == [tmp_path / 'a.csv']


def test_lines_of_json_that_can_be_read():
    lines = ['{"a": 1}', '', 'no', '[1]', '{"a": ' * 10**4, '{"a": 2}', '{"a": 3']
    assert list(files.json_lines('\n'.join(lines))) == [{'a': 1}, {'a': 2}]


def test_a_folder_with_a_pipe_is_refused(tmp_path):
    (tmp_path / 'inner').mkdir()
    (tmp_path / 'inner' / 'a').write_text(json.dumps({}))
    files.check_regular(tmp_path)
    os.mkfifo(tmp_path / 'inner' / 'pipe')
    with pytest.raises(UserError, match='inner/pipe: it is no regular file'):
        files.check_regular(tmp_path)
