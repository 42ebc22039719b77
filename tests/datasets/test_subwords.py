import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mha import datasets
from mha.datasets import subwords
from mha.spec import UserError

ROOT = Path(__file__).parents[2]
TEXT = ' '.join(
    f'The {word} cat sat on {number} mats.\n    Ein Kätzchen saß da.' for number, word in enumerate('abc' * 99)
)


@pytest.fixture(scope='module')
def learned(tmp_path_factory):
    """Subwords of a small text."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp('subwords')
        patch.setenv('MHA_CACHE', str(folder / 'cache'))
        (folder / 'a.txt').write_text(TEXT)
        return subwords.make('bpe(300)', datasets.documents(str(folder / 'a.txt')))


def test_bytes(write):
    write({'a.txt': TEXT})
    tokens = subwords.make('bytes', datasets.documents('a.txt'))
    assert (tokens.size, tokens.json) == (256, '')
    assert tokens.encode('hü'.encode()) == [104, 195, 188]
    assert tokens.bytes_per_token.tolist() == [1] * 256


def test_subwords(learned):
    assert learned.size == len({*learned.tokens}) == 300
    assert {bytes([byte]) for byte in range(256)} <= {*learned.tokens}
    assert b' mats' in learned.tokens
    assert learned.bytes_per_token.tolist() == [len(token) for token in learned.tokens]
    encoded = learned.encode(TEXT.encode())
    assert len(encoded) < len(TEXT) / 2
    assert learned.bytes_per_token[encoded].sum() == len(TEXT.encode())
    assert learned.decode(encoded) == TEXT.encode()


@pytest.mark.parametrize('kind', ['bytes', 'learned'])
def test_every_code_point(kind, learned):
    tokens = learned if kind == 'learned' else subwords.Subwords()
    text = ''.join(chr(point) for point in range(sys.maxunicode + 1) if not 0xD800 <= point < 0xE000).encode()
    assert tokens.decode(tokens.encode(text)) == text


@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
@settings(deadline=None, max_examples=300)
def test_any_bytes(learned, text):
    assert learned.decode(learned.encode(text)) == text


@given(st.lists(st.binary(max_size=60), max_size=8))
@settings(deadline=None, max_examples=100)
def test_texts_in_a_row(learned, texts):
    """Equal to those of `tokenizers` itself, which reads one text at a time."""
    together = learned.encode_all(texts)
    assert together.content.dtype == np.int32
    rows = [together.content[a:b].tolist() for a, b in zip(together.start, together.start[1:], strict=False)]
    assert rows == [learned._tokenizer.encode(text.decode('latin-1')).ids for text in texts]


def test_large_texts(learned, monkeypatch):
    """Texts are cut into pieces, and words forgotten, without a trace except where a word is cut."""
    texts = [TEXT.encode(), b'', TEXT.encode() * 3]
    whole = learned.encode_all(texts)
    monkeypatch.setattr(subwords, 'KNOWN', 3)
    monkeypatch.setattr(subwords, 'AT_ONCE', 100)
    again = learned.encode_all(texts)
    np.testing.assert_array_equal(whole.content, again.content)
    np.testing.assert_array_equal(whole.start, again.start)
    monkeypatch.setattr(subwords, 'PIECE', 7)
    cut = learned.encode_all(texts)
    for index, text in enumerate(texts):
        assert learned.decode(cut.content[cut.start[index] : cut.start[index + 1]]) == text


def test_learned_from_the_train_split_alone(write):
    write({'a.txt': 'cat ' * 900 + 'dog ' * 100})
    tokens = subwords.make('bpe(260)', datasets.documents('a.txt')).tokens
    assert b' cat' in tokens
    assert not [token for token in tokens if b'do' in token]


def test_all_fields_of_pairs(write):
    write({'a.tsv': ''.join(f'cat {i}\tKatze {i}\n' for i in range(50))})
    tokens = subwords.make('bpe(300)', datasets.pairs('a.tsv')).tokens
    assert {b'cat', b'Katze'} <= {*tokens}


def test_the_same_in_every_process(write, learned, tmp_path):
    write({'a.txt': TEXT})
    code = """if True:
        import hashlib
        from mha import datasets
        from mha.datasets import subwords
        tokens = subwords.make('bpe(300)', datasets.documents('a.txt'))
        print(hashlib.sha256(tokens.json.encode()).hexdigest())
    """
    for seed in '0', '1':
        environ = os.environ | {'PYTHONPATH': str(ROOT), 'PYTHONHASHSEED': seed, 'MHA_CACHE': str(tmp_path / seed)}
        done = subprocess.run([sys.executable, '-c', code], env=environ, stdout=subprocess.PIPE, text=True, check=True)
        assert done.stdout.strip() == hashlib.sha256(learned.json.encode()).hexdigest()


def test_are_kept(write, monkeypatch):
    write({'a.txt': TEXT})
    corpus = datasets.documents('a.txt')
    first = subwords.make('bpe(300)', corpus)
    monkeypatch.setattr(subwords, '_learned', None)
    assert subwords.make('bpe(300)', corpus) == subwords.make('bpe(size=300)', corpus) == first
    assert json.loads(first.json)['model']['type'] == 'BPE'
    with pytest.raises(TypeError):
        subwords.make('bpe(301)', corpus)


@pytest.mark.parametrize('content', [b'', b'{}', b'null', b'\xff', b'{"model": '])
def test_damage_of_the_cache_is_mended(write, cache, content, capsys):
    """An empty file would be read as bytes."""
    write({'a.txt': TEXT})
    corpus = datasets.documents('a.txt')
    learned = subwords.make('bpe(300)', corpus)
    (file,) = (cache / 'subwords').iterdir()
    file.write_bytes(content)
    assert subwords.make('bpe(300)', corpus) == learned
    assert capsys.readouterr().err.startswith(f'note: cannot read {file}: it is damaged (')
    assert file.read_text() == learned.json


def test_cache_that_cannot_be_written(write, cache):
    write({'a.txt': TEXT})
    corpus = datasets.documents('a.txt')
    (cache / 'subwords').touch()
    with pytest.raises(UserError, match=r'cannot write to \S+: File exists - set MHA_CACHE to a directory$'):
        subwords.make('bpe(300)', corpus)


@pytest.mark.parametrize(
    ('tokens', 'message'),
    [
        ('bpee(300)', r"unknown subwords 'bpee' - did you mean 'bpe'\? \(choices: bpe, bytes, checkpoint\)"),
        ('bpe(256)', "subwords 'bpe': size must be at least 257, not 256"),
        ('bytes(3)', 'too many arguments'),
        ('bpe|bytes', 'do not compose'),
    ],
)
def test_mistakes(write, tokens, message):
    write({'a.txt': TEXT})
    with pytest.raises(UserError, match=message):
        subwords.make(tokens, datasets.documents('a.txt'))
