"""Relations between words: read from files, aligned with tokens, and found by the heads of a planted model."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import mha
from mha import probes
from mha.datasets.checkpoint_tokens import CheckpointTokens
from mha.datasets.subwords import Subwords
from mha.probes import relations
from mha.spec import UserError
from tests.probes import planted

FILE = """\
# text = Näher, den Hund sah sie dann.
1\tNäher\tnah\tADV\t_\t_\t5\tadvmod\t_\tSpaceAfter=No
2\t,\t,\tPUNCT\t_\t_\t1\tpunct\t_\t_
3\tden\tder\tDET\t_\t_\t4\tdet\t_\t_
4\tHund\tHund\tNOUN\t_\t_\t5\tobj\t_\t_
5-6\tsahsie\t_\t_\t_\t_\t_\t_\t_\t_
5\tsah\tsehen\tVERB\t_\t_\t0\troot\t_\t_
6\tsie\tsie\tPRON\t_\t_\t5\tnsubj\t_\tCoref=3-4
6.1\tund\t_\t_\t_\t_\t_\t_\t_\t_
7\tdann\tdann\tADV\t_\t_\t_\t_\t_\tSpaceAfter=No
8\t.\t.\tPUNCT\t_\t_\t5\tpunct\t_\t_

1\tKomm\tkommen\tVERB\t_\t_\t0\troot\t_\t_
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'a.conllu'
    path.write_text(FILE, encoding='utf-8')
    return path


def test_sentences_of_a_file(path):
    first, second = probes.read_conllu(path)
    assert first.words == ['Näher', ',', 'den', 'Hund', 'sah', 'sie', 'dann', '.']
    assert first.text == 'Näher, den Hund sah sie dann.'
    assert [first.text.encode()[slice(*span)].decode() for span in first.spans] == first.words
    assert first.links[2] == probes.Link('det', (2,), (3,))
    assert probes.Link('coref', (5,), (2, 3)) in first.links
    assert [link.relation for link in first.links] == ['advmod', 'punct', 'det', 'obj', 'nsubj', 'coref', 'punct']
    assert (second.words, second.links) == (['Komm'], [])


@pytest.mark.parametrize(
    ('old', 'new', 'words'),
    [
        ('1\tpunct', 'punct', 'line 3: a word has 10 columns separated by tabs, not 9'),
        ('3\tden', '4\tden', "line 4: word 3 of the sentence has the number '4'"),
        ('5\tobj', '9\tobj', "line 5: obj is to another word from 1 to 8, not '9'"),
        ('5\tobj', 'x\tobj', "not 'x'"),
        ('5\tobj', '4\tobj', "obj is to another word from 1 to 8, not '4'"),
        ('Coref=3-4', 'Coref=4-3', "line 8: coref is to another word from 1 to 8, not '4-3'"),
        ('3\tden\t', '3\t\t', 'line 4: word 3 has no form'),
        (FILE, '# text\n', 'has no sentence'),
    ],
)
def test_mistakes_name_file_and_line(path, old, new, words):
    path.write_text(FILE.replace(old, new), encoding='utf-8')
    with pytest.raises(UserError) as error:
        probes.read_conllu(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)


def test_missing_files_are_told(tmp_path):
    with pytest.raises(UserError, match=r'cannot read .*none\.conllu'):
        probes.read_conllu(tmp_path / 'none.conllu')


class Pieces(Subwords):
    """Subwords that are the given pieces of a text."""

    def __init__(self, pieces):
        vars(self)['tokens'] = [piece.encode() for piece in pieces]

    def prompt(self, text):
        assert text.encode() == b''.join(self.tokens)
        return [*range(len(self.tokens))]


def aligned(subwords, sentence):
    task = mha.tasks.Task()
    task.subwords = subwords
    return relations.aligned(task, sentence)


def test_tokens_belong_to_words(path):
    sentence = probes.read_conllu(path)[0]
    text = sentence.text
    tokens, owners = aligned(Pieces(['Nä', 'her', ',', ' den', ' ', 'Hund ', 'sah', ' sie', ' dann.']), sentence)
    assert (tokens, owners) == ([*range(9)], [0, 0, 1, 2, -1, 3, 4, 5, 7])
    _, owners = aligned(Pieces([*text]), sentence)
    assert [text[i] for i, owner in enumerate(owners) if owner == -1] == [' '] * 5
    assert ''.join(text[i] for i, owner in enumerate(owners) if owner == 3) == 'Hund'


def test_word_pieces_belong_to_words(path):
    """Tokens of BERT, which have lost spaces, case and accents, between marks of the ends."""
    sentence = probes.read_conllu(path)[0]
    names = ['[UNK]', '[CLS]', '[SEP]', 'na', '##her', ',', 'den', 'hund', 'sah', 'sie', 'dann', '.']
    tokenizer = Tokenizer(models.WordPiece({name: token for token, name in enumerate(names)}, unk_token='[UNK]'))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(('[SEP]', 2), ('[CLS]', 1))
    tokenizer.add_special_tokens(['[UNK]', '[CLS]', '[SEP]'])
    tokens, owners = aligned(CheckpointTokens(tokenizer.to_str(), '', len(names)), sentence)
    assert [names[token] for token in tokens] == ['[CLS]', *names[3:], '[SEP]']
    assert owners == [-1, 0, *range(8), -1]


def test_words_without_tokens_have_no_relations():
    links = [probes.Link('a', (2,), (1,)), probes.Link('a', (0,), (2,)), probes.Link('a', (1,), (0, 2))]
    sentences = [probes.Sentence([*'xyz'], links), probes.Sentence([''], [])]
    read = {'x y z': ([1, 2], [0, 1]), '': ([], [])}
    found = probes.relations_of(planted.model(), sentences, lambda one: read[one.text])
    assert [(one.relation, one.direction, one.count) for one in found] == [('a', 'out', 1)]
    with pytest.raises(UserError, match='no sentences'):
        probes.relations_of(planted.model(), [], lambda one: read[one.text])


@pytest.mark.slow
def test_maps_of_words_are_sums_and_means_of_those_of_tokens():
    """Attention to a word is the sum over its tokens, from a word the mean; sequences of any number and size."""
    made = mha.Encoder(
        vocab_size=9, num_classes=2, max_len=64, layers=2, dim=8, heads=2, position='rope', rngs=nnx.Rngs(0)
    )
    draw = np.random.default_rng(0)
    read = [
        (draw.integers(9, size=size).tolist(), [-1, *range((size - 1) // 2), *range((size - 1) // 2)])
        for size in (7, 41, 5, 9)
    ]
    for (tokens, owners), found in zip(read, relations.word_maps(made, read), strict=True):
        weights = np.float64(probes.record(made, jnp.array([tokens])).weights()[:, 0])
        owners, words = np.array(owners), (len(tokens) - 1) // 2
        assert found.shape == (2, 2, words, words)
        for i, j in np.ndindex(words, words):
            wanted = weights[:, :, owners == i][..., owners == j].sum(-1).mean(-1)
            np.testing.assert_allclose(found[:, :, i, j], wanted, atol=1e-5)


def test_planted_heads_follow_relations():
    """The previous-token head follows a relation to the word before, the duplicate head one to the same word."""
    words = [str(token) for token in planted.tokens(1)[0].tolist()]
    half = planted.SYMBOLS
    before = [probes.Link('before', (i,), (i - 1,)) for i in range(1, len(words))]
    again = [probes.Link('again', (i,), (i - half - 2, i - half)) for i in range(half + 2, len(words))]
    after = [probes.Link('after', (i,), (i + 1,)) for i in range(half, len(words) - 1)]
    sentences = [probes.Sentence(words, before + again), probes.Sentence(words, after)]
    found = probes.relations_of(
        planted.model(), sentences, lambda one: ([int(word) for word in one.words], [*range(len(one.words))])
    )
    assert [(one.relation, one.direction, one.count, one.best) for one in found] == [
        ('before', 'out', 15, planted.PREVIOUS),
        ('after', 'in', 7, planted.PREVIOUS),
        ('again', 'out', 6, planted.DUPLICATE),
    ]
    assert [float(one.accuracy[one.best]) for one in found] == [1, 1, 1]
    assert [(one.offset, one.baseline) for one in found[:2]] == [(-1, 1), (1, 1)]
    assert found[0].accuracy[planted.DUPLICATE] < 0.5


def test_relations_of_a_run(path, tmp_path):
    run = mha.load(Path(__file__).parents[1] / 'runs' / 'alibi')
    sentences = [probes.Sentence([*'120___'], [probes.Link('copy', (i + 3,), (i,)) for i in range(3)])]
    found = {(one.relation, one.direction): one for one in probes.head_relations(run, sentences)}
    assert {*found} == {('copy', 'out'), ('copy', 'in')}
    assert found['copy', 'out'].accuracy.shape == (1, 2)
    assert (found['copy', 'in'].offset, found['copy', 'in'].baseline) == (-3, 1)
    with pytest.raises(UserError, match='no symbol'):
        probes.head_relations(run, path)
