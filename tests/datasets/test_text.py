import hashlib
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mha.datasets import text
from mha.spec import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MHA_CACHE', str(tmp_path / 'cache'))
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'cache'


def write(folder, count):
    """Files 00.txt, 01.txt, ... of random bytes, which are not valid UTF-8; returns their contents."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    contents = [rng.bytes(20 + i) for i in range(count)]
    for i, content in enumerate(contents):
        (folder / f'{i:02}.txt').write_bytes(content)
    return contents


def test_every_tenth_file_is_test_data(tmp_path):
    contents = write(tmp_path / 'corpus', 23)
    sha256 = text.prepare('corpus/*.txt')
    assert text.read(sha256, 'train').tobytes() == b''.join(c for i, c in enumerate(contents) if i not in (9, 19))
    assert text.read(sha256, 'test').tobytes() == contents[9] + contents[19]
    assert text.read(sha256, 'train').dtype == np.uint8
    files = text.read_files(sha256, 'test')
    assert {path: content.tobytes() for path, content in files.items()} == {
        '09.txt': contents[9],
        '19.txt': contents[19],
    }
    assert list(text.read_files(sha256, 'train')) == [f'{i:02}.txt' for i in range(23) if i not in (9, 19)]


@pytest.mark.parametrize('count', [1, 3, 9])
def test_few_files_are_split_by_bytes(tmp_path, count):
    contents = write(tmp_path / 'corpus', count)
    sha256 = text.prepare('corpus/*.txt')
    tails = [-(-len(c) // 10) for c in contents]
    assert text.read(sha256, 'train').tobytes() == b''.join(c[:-n] for c, n in zip(contents, tails, strict=True))
    assert text.read(sha256, 'test').tobytes() == b''.join(c[-n:] for c, n in zip(contents, tails, strict=True))


def test_one_record_per_file(tmp_path, cache):
    contents = write(tmp_path / 'corpus', 12)
    (folder,) = (cache / 'byte_text' / text.prepare('corpus/*.txt')).iterdir()
    records = tfds.builder_from_directory(folder).as_data_source('train')
    assert [(bytes(r['path']).decode(), r['text'].tobytes()) for r in records] == [
        (f'{i:02}.txt', content) for i, content in enumerate(contents) if i != 9
    ]


def test_sha256_is_that_of_the_shell(tmp_path):
    write(tmp_path / 'corpus', 3)
    listing = subprocess.run('sha256sum *.txt', shell=True, cwd=tmp_path / 'corpus', check=True, capture_output=True)
    assert text.prepare('corpus/*.txt') == hashlib.sha256(listing.stdout).hexdigest()


def test_name_depends_on_content_not_on_place(tmp_path, monkeypatch):
    write(tmp_path / 'a', 3), write(tmp_path / 'b', 3)
    here = text.prepare('a/*.txt')
    assert here == text.prepare('b/*.txt') == text.prepare(f'{tmp_path}/b/**/*.txt') == text.prepare('a/../a/*.txt')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert here == text.prepare('~/a/*.txt')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'b/03.txt').touch()
    assert here == text.prepare('b/*.txt'), 'empty files do not count'
    (tmp_path / 'b/00.txt').write_bytes(b'other')
    assert here != text.prepare('b/*.txt')


def test_prepares_once_and_in_silence(tmp_path, cache, monkeypatch, capfd):
    write(tmp_path / 'corpus', 12)
    sha256 = text.prepare('corpus/*.txt')
    assert capfd.readouterr() == ('', '')
    assert [path.name for path in cache.iterdir()] == ['byte_text'], 'nothing temporary is left'
    monkeypatch.setattr(text, '_build', None)
    assert text.prepare('corpus/*.txt') == sha256


def test_prepares_in_two_processes_at_once(tmp_path, cache):
    write(tmp_path / 'corpus', 12)
    with multiprocessing.get_context('spawn').Pool(2) as pool:
        first, second = pool.map(text.prepare, ['corpus/*.txt'] * 2, chunksize=1)
    assert first == second
    assert text.read(first, 'test').size == 29
    assert [path.name for path in cache.iterdir()] == ['byte_text']


def test_loser_of_the_race_keeps_the_winner(tmp_path, monkeypatch):
    contents = write(tmp_path / 'corpus', 1)
    build = text._build

    def build_twice(files, directory):
        build(files, directory), build(files, directory)

    monkeypatch.setattr(text, '_build', build_twice)
    assert text.read(text.prepare('corpus/*.txt'), 'train').tobytes() == contents[0][:18]


@pytest.mark.parametrize(
    ('pattern', 'message'),
    [
        ('none/*.txt', "text 'none/*.txt' matches no file - it is a path or glob, relative to {cwd}"),
        ('corpus', "text 'corpus' is a directory - write 'corpus/*.txt'"),
        ('empty.txt', "text 'empty.txt' matches only empty files"),
        ('dang*', 'cannot read {cwd}/dangling: No such file or directory'),
    ],
)
def test_mistakes(tmp_path, pattern, message):
    write(tmp_path / 'corpus', 1)
    (tmp_path / 'empty.txt').touch()
    (tmp_path / 'dangling').symlink_to('nowhere')
    with pytest.raises(UserError, match=re.escape(message.format(cwd=os.getcwd())) + '$'):
        text.prepare(pattern)


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    write(tmp_path / 'corpus', 1)
    monkeypatch.setenv('MHA_CACHE', str(tmp_path / 'corpus/00.txt'))
    with pytest.raises(UserError, match='set MHA_CACHE to a directory'):
        text.prepare('corpus/*.txt')


def test_standard_library_without_tensorflow(cache):
    code = """if True:
        import sys
        from mha.datasets import text
        sha256 = text.prepare()
        train, test = (text.read(sha256, split) for split in ('train', 'test'))
        assert 'tensorflow' not in sys.modules
        print(train.size, test.size)
    """
    root = Path(__file__).parents[2]
    output = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True, cwd=root)
    train, test = map(int, output.stdout.split())
    assert train > 5e6
    assert 0.05 < test / (train + test) < 0.2
