import gzip
import hashlib
import multiprocessing
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mha import datasets
from mha.datasets import files, preparation
from mha.spec import UserError

ROOT = Path(__file__).parents[2]


def write_files(folder, count):
    """Files 00.txt, 01.txt, ... of random bytes, which are not valid UTF-8; returns their contents."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    contents = [rng.bytes(20 + i) for i in range(count)]
    for i, content in enumerate(contents):
        (folder / f'{i:02}.txt').write_bytes(content)
    return contents


def joined(corpus, split):
    return corpus.read(split)['text'].content.tobytes()


def by_path(corpus, split):
    columns = corpus.read(split)
    return dict(zip(columns['path'], columns['text'], strict=True))


def test_every_tenth_file_is_test_data(tmp_path):
    contents = write_files(tmp_path / 'corpus', 23)
    corpus = datasets.documents('corpus/*.txt')
    assert by_path(corpus, 'test') == {b'09.txt': contents[9], b'19.txt': contents[19]}
    assert by_path(corpus, 'train') == {
        f'{i:02}.txt'.encode(): content for i, content in enumerate(contents) if i not in (9, 19)
    }
    assert joined(corpus, 'train') == b''.join(c for i, c in enumerate(contents) if i not in (9, 19))
    assert corpus.labels == ()
    assert corpus.facts == {
        'data_train_examples': 21,
        'data_test_examples': 2,
        'data_train_bytes': sum(map(len, contents)) - 29 - 39,
        'data_test_bytes': 29 + 39,
        'data_malformed': 0,
        'data_malformed_rows': [],
        'data_split': 'every 10th file is test data',
        'data_provenance': f'23 files in {tmp_path}/corpus',
        'data_licence': 'not stated',
    }


@pytest.mark.parametrize('count', [1, 3, 9])
def test_few_files_are_split_by_bytes(tmp_path, count):
    contents = write_files(tmp_path / 'corpus', count)
    corpus = datasets.documents('corpus/*.txt')
    tails = [-(-len(c) // 10) for c in contents]
    assert joined(corpus, 'train') == b''.join(c[:-n] for c, n in zip(contents, tails, strict=True))
    assert joined(corpus, 'test') == b''.join(c[-n:] for c, n in zip(contents, tails, strict=True))


def test_a_single_byte(write):
    write({'a.txt': b'x'})
    corpus = datasets.documents('a.txt')
    assert (by_path(corpus, 'train'), by_path(corpus, 'test')) == ({b'a.txt': b''}, {b'a.txt': b'x'})


def test_large_files_have_several_records(tmp_path, cache):
    content = np.random.default_rng(0).bytes(3 * files.BLOCK)
    (tmp_path / 'a.txt').write_bytes(content)
    corpus = datasets.documents('a.txt')
    records = tfds.builder_from_directory(corpus.directory).as_data_source('train')
    sizes = [len(record['text']) for record in records]
    assert sizes == [files.BLOCK, files.BLOCK, 3 * files.BLOCK * 9 // 10 - 2 * files.BLOCK]
    assert b''.join(record['text'] for record in records) == content[: sum(sizes)]
    assert {record['path'] for record in records} == {b'a.txt'}
    assert by_path(corpus, 'train') == {b'a.txt': content[: sum(sizes)]}, 'a document is one text'
    assert by_path(corpus, 'test') == {b'a.txt': content[sum(sizes) :]}


def test_compressed_files(write):
    text = b'a line\r\n' * 1000
    write({'a.txt.gz': gzip.compress(text, mtime=0), 'b.txt': text})
    corpus = datasets.documents('.')
    assert by_path(corpus, 'train') == {b'a.txt.gz': text[:7200], b'b.txt': text[:7200]}
    write({'c.txt.gz': gzip.compress(text)[:-20]})
    with pytest.raises(UserError, match=r'cannot read \S+/c.txt.gz: Compressed file ended'):
        datasets.documents('c.txt.gz')


def test_a_damaged_file_is_named(write):
    content = bytearray(gzip.compress(bytes(range(256)) * 40, mtime=0))
    content[20:40] = b'x' * 20
    write({'a.txt.gz': bytes(content)})
    with pytest.raises(UserError, match=r'cannot read \S+/a.txt.gz: '):
        datasets.documents('a.txt.gz')


def test_files_named_train_and_test_are_the_splits(write):
    """Unless other files are among them, as in the source of a project with tests."""
    write({'train.txt': 'abc', 'test.txt': 'def', 'valid.txt': 'ghi'})
    corpus = datasets.documents('*.txt')
    assert by_path(corpus, 'train') == {b'train.txt': b'abc'}
    assert by_path(corpus, 'test') == {b'test.txt': b'def'}
    assert corpus.facts['data_split'] == 'by the names of the files'
    write({'other.txt': 'jkl'})
    corpus = datasets.documents('*.txt')
    assert by_path(corpus, 'train').keys() == {b'train.txt', b'test.txt', b'valid.txt', b'other.txt'}
    assert corpus.facts['data_split'] == 'the last of 10 parts of each file is test data'


def test_sha256_is_that_of_the_shell(tmp_path):
    write_files(tmp_path / 'corpus', 3)
    listing = subprocess.run('sha256sum *.txt', shell=True, cwd=tmp_path / 'corpus', check=True, capture_output=True)
    assert datasets.documents('corpus/*.txt').sha256 == hashlib.sha256(listing.stdout).hexdigest()


def test_name_depends_on_content_not_on_place(tmp_path, monkeypatch):
    write_files(tmp_path / 'a', 3), write_files(tmp_path / 'b', 3)
    here = datasets.documents('a/*.txt')
    same = ('b/*.txt', f'{tmp_path}/b/**/*.txt', 'a/../a/*.txt', 'b', 'b/')
    assert {datasets.documents(data) for data in same} == {here}
    monkeypatch.setenv('HOME', str(tmp_path))
    assert here == datasets.documents('~/a/*.txt')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'b/03.txt').touch()
    assert here == datasets.documents('b/*.txt'), 'empty files do not count'
    (tmp_path / 'link').symlink_to('b')
    assert here == datasets.documents('link/*.txt')
    (tmp_path / 'b/00.txt').write_bytes(b'other')
    assert here != datasets.documents('b/*.txt')


def test_a_path_with_special_characters(write):
    write({'a [1],b/*.txt': 'text of this file'})
    assert joined(datasets.documents('a [1],b/*.txt'), 'train') == b'text of this fi'


def test_prepares_once_and_in_silence(tmp_path, cache, monkeypatch, capfd):
    write_files(tmp_path / 'corpus', 12)
    corpus = datasets.documents('corpus/*.txt')
    assert capfd.readouterr() == ('', '')
    assert [path.name for path in cache.iterdir()] == ['documents'], 'nothing temporary is left'
    monkeypatch.setattr(preparation, '_build', lambda *args: pytest.fail('it is prepared again'))
    assert datasets.documents('corpus/*.txt') == corpus


def test_shows_that_it_takes_long(tmp_path, monkeypatch, capfd):
    write_files(tmp_path / 'corpus', 12)
    rows = files._document_rows
    monkeypatch.setattr(files, '_document_rows', lambda *args: (_wait(row) for row in rows(*args)))
    datasets.documents('corpus/*.txt')
    assert 'prepare: ' in capfd.readouterr().err


def _wait(row):
    time.sleep(0.2)
    return row


def _prepared(data):
    corpus = datasets.documents(data)
    return corpus.sha256, joined(corpus, 'test')


def test_prepares_in_two_processes_at_once(tmp_path, cache):
    write_files(tmp_path / 'corpus', 12)
    with multiprocessing.get_context('spawn').Pool(2) as pool:
        first, second = pool.map(_prepared, ['corpus/*.txt'] * 2, chunksize=1)
    assert first == second
    assert len(first[1]) == 29
    assert [path.name for path in cache.iterdir()] == ['documents']


def test_loser_of_the_race_keeps_the_winner(tmp_path, monkeypatch):
    contents = write_files(tmp_path / 'corpus', 1)
    build = preparation._build

    def build_twice(*args):
        build(*args), build(*args)

    monkeypatch.setattr(preparation, '_build', build_twice)
    assert joined(datasets.documents('corpus/*.txt'), 'train') == contents[0][:18]


def test_a_killed_preparation_starts_over(tmp_path, cache):
    """A process that is killed while it writes leaves nothing that the next would read."""
    contents = write_files(tmp_path / 'corpus', 12)
    code = """if True:
        import os, signal
        from mha import datasets
        from mha.datasets import files
        rows = files._document_rows
        def killed(*args):
            for number, row in enumerate(rows(*args)):
                if number == 6:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield row
        files._document_rows = killed
        datasets.documents('corpus/*.txt')
    """
    done = subprocess.run([sys.executable, '-c', code], env=os.environ | {'PYTHONPATH': str(ROOT)}, cwd=tmp_path)
    assert done.returncode == -9
    assert [*cache.glob('preparing-*')]
    corpus = datasets.documents('corpus/*.txt')
    assert joined(corpus, 'train') == b''.join(c for i, c in enumerate(contents) if i != 9)
    assert [path.name for path in cache.iterdir()] == ['documents'], 'what was left is removed'


def test_a_preparation_leaves_others_alone(tmp_path, cache, monkeypatch):
    """One that begins while another one writes does not remove its files."""
    contents = write_files(tmp_path / 'corpus', 12)
    (tmp_path / 'other.txt').write_bytes(b'other')
    rows = files._document_rows

    def slowly(*args):
        for number, row in enumerate(rows(*args)):
            if number == 6:
                monkeypatch.setattr(files, '_document_rows', rows)
                datasets.documents('other.txt')
            yield row

    monkeypatch.setattr(files, '_document_rows', slowly)
    corpus = datasets.documents('corpus/*.txt')
    assert joined(corpus, 'train') == b''.join(c for i, c in enumerate(contents) if i != 9)
    assert [path.name for path in cache.iterdir()] == ['documents']


@pytest.mark.parametrize('name', ['*-train.*', '*-test.*', 'dataset_info.json', 'features.json', 'metadata.json'])
@pytest.mark.parametrize('damage', ['half', 'empty', 'gone'])
def test_damage_of_the_cache_is_mended(tmp_path, cache, name, damage, capsys):
    """Whether it is seen when the corpus is opened or only when it is read. A line says so."""
    contents = write_files(tmp_path / 'corpus', 12)
    directory = datasets.documents('corpus/*.txt').directory
    (file,) = directory.glob(name)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage == 'half' else b'')
    if damage == 'gone':
        file.unlink()
    corpus = datasets.documents('corpus/*.txt')
    assert {split: joined(corpus, split) for split in datasets.SPLITS} == {
        'train': b''.join(c for i, c in enumerate(contents) if i != 9),
        'test': contents[9],
    }
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf'note: cannot read {directory}: it is damaged \(.+\) - it is made again', line)
    assert [path.name for path in cache.iterdir()] == ['documents']


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (
            'none/*.tex',
            "no file matches 'none/*.tex', relative to {cwd}, and data sets are named like 'wiki40b/en:1.3.0[:10%]'",
        ),
        *(
            (name, f'no file matches {name!r}, relative to {{cwd}}')
            for name in ('none/*.txt', 'notes/today.txt', 'a.gz')
        ),
        (
            'corpus/none',
            "'corpus/none' is neither a file, relative to {cwd}, nor a prepared data set of TFDS - where TensorFlow is "
            'installed, run: tfds build corpus/none --file_format=array_record',
        ),
        ('folder', "the directory 'folder' has no file **/*.txt or **/*.txt.gz"),
        ('empty.txt', "'empty.txt' matches only empty files"),
        ('dang*', 'cannot read {cwd}/dangling: No such file or directory'),
    ],
)
def test_mistakes(tmp_path, data, message):
    write_files(tmp_path / 'corpus', 1)
    (tmp_path / 'empty.txt').touch()
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'dangling').symlink_to('nowhere')
    with pytest.raises(UserError, match=re.escape(message.format(cwd=os.getcwd())) + '$'):
        datasets.documents(data)


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    write_files(tmp_path / 'corpus', 1)
    monkeypatch.setenv('MHA_CACHE', str(tmp_path / 'corpus/00.txt'))
    with pytest.raises(UserError, match='set MHA_CACHE to a directory'):
        datasets.documents('corpus/*.txt')


@pytest.mark.parametrize('call', ['write', 'close'])
def test_a_full_disk(tmp_path, cache, monkeypatch, call):
    def full(*args):
        raise RuntimeError('write() failed: No space left on device')

    class Writer(preparation.ArrayRecordWriter):
        pass

    setattr(Writer, call, full)
    monkeypatch.setattr(preparation, 'ArrayRecordWriter', Writer)
    write_files(tmp_path / 'corpus', 1)
    message = f'cannot write to {cache}: write() failed: No space left on device - set MHA_CACHE to a directory'
    with pytest.raises(UserError, match=re.escape(message) + '$'):
        datasets.documents('corpus/*.txt')


def test_standard_library():
    corpus = datasets.documents()
    assert corpus.facts['data_train_bytes'] > 5e6
    assert 0.05 < corpus.facts['data_test_bytes'] / corpus.facts['data_train_bytes'] < 0.2
    assert corpus.facts['data_licence'] == 'PSF-2.0'
    assert b'import' in joined(corpus, 'test')


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='the system does not say how much memory is used')
def test_memory_of_a_large_file(tmp_path):
    """A file of 1 GB is prepared with less than 300 MB more than a small one."""
    with (tmp_path / 'large.txt').open('wb') as file:
        for _ in range(1000):
            file.write(np.random.default_rng(0).bytes(10**6))
    (tmp_path / 'small.txt').write_bytes(b'small')
    code = """if True:
        import sys
        from pathlib import Path
        from mha import datasets
        datasets.documents(sys.argv[1])
        print(next(line.split()[1] for line in Path('/proc/self/status').open() if line.startswith('VmHWM')))
    """
    environ = os.environ | {'PYTHONPATH': str(ROOT)}
    small, large = (
        int(subprocess.run([sys.executable, '-c', code, name], env=environ, stdout=subprocess.PIPE, check=True).stdout)
        for name in ('small.txt', 'large.txt')
    )
    assert (large - small) / 1024 < 300
