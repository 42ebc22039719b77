import functools
import re

import jax
import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """One file of random letters; its first 900 bytes are the train split."""
    monkeypatch.setenv('MHA_CACHE', str(tmp_path / 'cache'))
    path = tmp_path / 'letters.txt'
    path.write_bytes(bytes(np.random.default_rng(0).integers(97, 123, 1000, np.uint8)))
    return path


def make(corpus, causal=False, **options):
    options = ''.join(f', {key}={value!r}' for key, value in options.items())
    return tasks.make(f'lm({str(corpus)!r}{options})', causal=causal)


def test_what_is_recorded(corpus):
    facts = make(corpus).facts
    assert (facts['data_train_bytes'], facts['data_test_bytes']) == (900, 100)
    assert make(corpus).metric == 'bits_per_byte'
    assert tasks.make('parity_check').facts == {}


@functools.partial(jax.jit, static_argnums=2)
def draw(task, length, max_length):
    return task.batch(jax.random.key(0), 500, length, max_length)


def sample(task, length, max_length=20):
    return jax.tree.map(np.asarray, draw(task, length, max_length))


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('length', [1, 7, 20])
def test_shapes_and_padding(corpus, causal, length):
    batch = sample(make(corpus, causal), length)
    assert {leaf.shape for leaf in jax.tree.leaves(batch)} == {(500, 20)}
    assert batch.tokens.dtype == batch.targets.dtype == np.int32
    assert (batch.valid == (np.arange(20) < length)).all()
    assert not batch.tokens[~batch.valid].any()
    assert not batch.targets[~batch.valid].any()
    assert not (batch.loss_mask & ~batch.valid).any()
    assert (batch.loss_mask == batch.metric_mask).all()


def test_causal_targets_are_the_next_bytes_of_the_text(corpus):
    batch = sample(make(corpus, causal=True), 7)
    assert batch.loss_mask[:, :7].all()
    for tokens, targets in zip(batch.tokens[:, :7], batch.targets[:, :7], strict=True):
        assert (tokens[1:] == targets[:-1]).all()
        assert bytes([tokens[0], *targets]) in corpus.read_bytes()[:900]


def test_masked_targets_are_the_text_and_tokens_hide_it_at_the_loss(corpus):
    task = make(corpus)
    batch = sample(task, 20)
    masked = batch.loss_mask
    assert (batch.tokens[masked] == 256).all()
    assert (batch.tokens[~masked] == batch.targets[~masked]).all()
    assert task.vocab_size == 257
    for targets in batch.targets:
        assert bytes(targets.tolist()) in corpus.read_bytes()[:900]


def test_causal_and_masked_see_the_same_crops(corpus):
    np.testing.assert_array_equal(sample(make(corpus, causal=True), 7).tokens, sample(make(corpus), 7).targets)


def test_crops_cover_the_split_uniformly_to_its_last_byte(corpus):
    task = make(corpus, causal=True)
    task.data = task.data[:6]
    pairs, counts = np.unique(sample(task, 2, 5).targets[:, :2], axis=0, return_counts=True)
    assert pairs.tolist() == sorted(task.data[i : i + 2].tolist() for i in (1, 2, 3, 4))
    assert (abs(counts / 500 - 1 / 4) < 0.08).all()


@pytest.mark.parametrize('rate', [0.15, 0.5])
def test_mask_rate(corpus, rate):
    shares = sample(make(corpus, mask_rate=rate), 20).loss_mask.mean(0)
    # No draw of 20 is below the rate with probability (1 - rate)^20; then one byte is masked all the same.
    assert abs(shares.mean() - rate - (1 - rate) ** 20 / 20) < 0.015
    assert abs(shares - rate).max() < 0.1, 'the same share at all positions'


@pytest.mark.parametrize('length', [1, 2, 3])
def test_at_least_one_byte_is_masked(corpus, length):
    masked = sample(make(corpus, mask_rate=1e-9), length).loss_mask
    assert (masked.sum(-1) == 1).all()
    assert masked.any(0)[:length].all(), 'at any position'


@pytest.mark.parametrize('causal', [False, True])
def test_padding_changes_nothing(corpus, causal):
    task = make(corpus, causal)
    short, long = sample(task, 20), sample(task, 20, 800)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:, :20]), short, long)


def test_one_program_serves_all_lengths_and_settings_survive_jit(corpus):
    traces = []

    @jax.jit
    def count(task, length):
        traces.append(task.sha256)
        return task.batch(jax.random.key(0), 2, length, 16).valid.sum()

    task = make(corpus, causal=True)
    assert [int(count(task, length)) for length in (1, 5, 16)] == [2, 10, 32]
    assert traces == [task.sha256]


def test_bert_replaces_most_of_what_it_asks_for(corpus):
    """80 % by the mask, 10 % by a random byte, 10 % by itself; the answers are those without."""
    plain, bert = (sample(make(corpus, mask_rate=0.5, replaced=kind), 20) for kind in ('mask', 'bert'))
    for name in ('targets', 'loss_mask', 'valid'):
        np.testing.assert_array_equal(getattr(plain, name), getattr(bert, name))
    tokens, targets = bert.tokens[bert.loss_mask], bert.targets[bert.loss_mask]
    by_mask, same = (tokens == 256).mean(), (tokens == targets).mean()
    error = 4 * (0.2 * 0.8 / tokens.size) ** 0.5
    assert by_mask == pytest.approx(0.8, abs=error)
    assert same == pytest.approx(0.1 + 0.1 / 256, abs=error)
    assert (bert.tokens[~bert.loss_mask] == bert.targets[~bert.loss_mask]).all()


def test_whole_words_are_masked_or_none_of_their_bytes(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('one_2 two, dreißig (four)\n' * 40, encoding='utf-8')
    task = tasks.make(f'lm({str(path)!r}, mask_rate=0.4, whole_words=True)', causal=False)
    batch = sample(task, 30)
    for targets, masked in zip(batch.targets, batch.loss_mask, strict=True):
        text = bytes(targets.tolist()).decode('latin1')
        for word in re.finditer(r'[0-9A-Za-z_\x80-\xff]+', text):
            assert len(set(masked[word.start() : word.end()].tolist())) == 1
    assert 0.2 < batch.loss_mask.mean() < 0.6


@pytest.mark.parametrize('window', ['sliding', 'segments'])
def test_the_same_bytes_are_scored_at_every_length(corpus, window):
    task = make(corpus, causal=True, scored=4, window=window).held_out()
    content = corpus.read_bytes()[900:]
    found = {}
    for length in (4, 8, 20):
        batch = sample(task, length)
        assert (batch.loss_mask == batch.metric_mask).all()
        assert (batch.loss_mask.sum(-1) == 4).all()
        found[length] = [bytes(row[mask].tolist()) for row, mask in zip(batch.targets, batch.loss_mask, strict=True)]
        for tokens, targets in zip(batch.tokens[:, :length], batch.targets[:, :length], strict=True):
            assert bytes([tokens[0], *targets]) in content * 2, 'the text is a circle'
        begin = batch.loss_mask.argmax(-1)
        if window == 'sliding':
            assert (begin == length - 4).all()
        else:
            starts, counts = np.unique(begin, return_counts=True)
            assert starts.tolist() == list(range(0, length, 4))
            assert (abs(counts / 500 - 4 / length) < 0.08).all()
    assert found[4] == found[8] == found[20]
    assert len(set(found[4])) > 90, 'everywhere in the text'


def test_training_scores_all_bytes(corpus):
    plain, scored = (make(corpus, causal=True, scored=count) for count in (0, 4))
    jax.tree.map(np.testing.assert_array_equal, sample(plain, 7), sample(scored, 7))
    assert scored.same_examples
    assert not plain.same_examples


def test_subwords(tmp_path, monkeypatch):
    """A whole word is the subwords of its letters. Bits per byte count the bytes of the answers."""
    monkeypatch.setenv('MHA_CACHE', str(tmp_path / 'cache'))
    path = tmp_path / 'a.txt'
    path.write_text('one_2 two, dreißig (four)\n' * 400, encoding='utf-8')
    task = tasks.make(f"lm({str(path)!r}, tokens='bpe(264)', mask_rate=0.4, whole_words=True)", causal=False)
    assert (task.num_classes, task.vocab_size, len(task.alphabet)) == (264, 265, 264)
    assert task.bytes_per_symbol.max() > 1
    assert task.decode(task.subwords.encode('dreißig €'.encode())) == 'dreißig €'
    batch = sample(task, 20)
    for targets, masked in zip(batch.targets, batch.loss_mask, strict=True):
        pieces = [
            (task.subwords.tokens[token].decode('latin1'), bool(one))
            for token, one in zip(targets, masked, strict=True)
        ]
        by_byte = [one for text, one in pieces for _ in text]
        for word in re.finditer(r'[0-9A-Za-z_\x80-\xff]+', ''.join(text for text, _ in pieces)):
            assert len(set(by_byte[word.start() : word.end()])) == 1
    assert 0.2 < batch.loss_mask.mean() < 0.6


def test_held_out(corpus):
    task = make(corpus, causal=True, mask_rate=0.3)
    held_out = task.held_out()
    content = corpus.read_bytes()
    assert bytes(task.data.tolist()) == content[:900]
    assert bytes(held_out.data.tolist()) == bytes(held_out.held_out().data.tolist()) == content[900:]
    assert vars(held_out) == {**vars(task), 'data': held_out.data, 'on_test_data': True}


def test_a_person_reads_the_bytes(corpus):
    task = make(corpus, causal=True)
    batch = sample(task, 7)
    shown = tuple(bytes(row[0, :7].tolist()).decode() for row in (batch.tokens, batch.targets))
    assert task.readable(jax.tree.map(lambda leaf: leaf[0], batch)) == shown
    assert make(corpus).vocabulary[-1] == '▢'  # since '_' is a byte


def test_a_person_reads_the_masks(corpus):
    """All that are hidden, the last byte too."""
    task = make(corpus, mask_rate=1.0)
    batch = jax.tree.map(lambda leaf: leaf[0], sample(task, 7))
    assert task.readable(batch) == ('▢' * 7, bytes(batch.targets[:7].tolist()).decode())


def test_describes_itself(corpus):
    task = make(corpus)
    assert (task.num_tokens(7), task.output_length(7), task.chance) == (7, 7, 1 / 256)
    assert not task.baseline_per_position


def test_mistakes(corpus):
    held_out = make(corpus).held_out()
    jax.eval_shape(lambda: held_out.example(jax.random.key(0), 99, 99))
    with pytest.raises(UserError, match='length 100 needs more tokens of text than the 100 of the test split'):
        held_out.example(jax.random.key(0), 1, 100)
    with pytest.raises(UserError, match='mask_rate must be above 0 and at most 1, not 0'):
        make(corpus, mask_rate=0.0)
    with pytest.raises(UserError, match='scored tokens are for causal models'):
        make(corpus, scored=4)
    with pytest.raises(UserError, match=re.escape("no file matches 'none/*.txt'")):
        make('none/*.txt')


# --- packed documents ----------------------------------------------------------------------------------------------

FILES = ('abcdefg', 'hi', 'jklmnop', 'qrst', 'uvwxy', 'z', 'ABCDEFGHIJKLMNOP', 'QRS', 'TUVW', 'XYZ', '0123456')
"""No byte is in two files, so that it tells its file; the last but one is the test split, one has no next byte."""
TRAINED = [text for text in FILES if text != 'XYZ' and len(text) > 1]


@pytest.fixture
def packed(tmp_path, monkeypatch):
    monkeypatch.setenv('MHA_CACHE', str(tmp_path / 'cache'))
    for index, text in enumerate(FILES):
        (tmp_path / f'{index:02}.txt').write_text(text)

    def make(causal=True, **options):
        options = ''.join(f', {key}={value!r}' for key, value in options.items())
        return tasks.make(f"lm({str(tmp_path / '*.txt')!r}, documents='packed'{options})", causal=causal)

    return make


def pieces(batch, row, length=20):
    """Texts of the segments of a row."""
    text, segments = batch.tokens[row, :length], batch.segments[row, :length]
    return [bytes(text[segments == number].tolist()).decode() for number in np.unique(segments)]


def test_a_packed_row_holds_documents_up_to_the_cut_at_either_end(packed):
    batch = sample(packed(), 20)
    begun = dict.fromkeys(TRAINED, 0)
    for row in range(500):
        first, *others = pieces(batch, row)
        assert any(first in text for text in TRAINED)
        assert all(text in TRAINED for text in others[:-1])
        assert any(text.startswith((others or [first])[-1]) or not others for text in TRAINED)
        assert batch.segments[row].tolist() == np.repeat(range(1 + len(others)), [*map(len, (first, *others))]).tolist()
        begun = {text: count + others[:1].count(text) for text, count in begun.items()}
    whole = sum(begun.values())
    for text in TRAINED:
        if len(text) < 5:  # longer ones may be cut where they begin
            assert begun[text] / whole == pytest.approx(1 / len(TRAINED), abs=0.06)


def test_targets_stay_in_their_document(packed):
    batch = sample(packed(), 20)
    for tokens, targets, asked, segments in zip(
        batch.tokens, batch.targets, batch.loss_mask, batch.segments, strict=True
    ):
        for here, after, one in zip(tokens, targets, asked, strict=True):
            text = next(text for text in TRAINED if chr(here) in text)
            assert one == (chr(here) != text[-1])
            assert not one or text[text.index(chr(here)) + 1] == chr(after)
        assert asked[0]
        assert (np.flatnonzero(~asked[:-1]) == np.flatnonzero(np.diff(segments))).all()
    assert (batch.loss_mask == batch.metric_mask).all()
    assert sample(packed(), 1).loss_mask[:, 0].all()


def test_the_first_byte_is_uniform_over_the_pairs_of_the_text(packed):
    firsts, counts = np.unique(sample(packed(), 20).tokens[:, 0], return_counts=True)
    assert bytes(firsts.tolist()).decode() == ''.join(sorted(''.join(text[:-1] for text in TRAINED)))
    assert abs(counts - 500 / len(firsts)).max() < 5 * (500 / len(firsts)) ** 0.5


def test_positions_restart_or_are_the_slots(packed):
    batch = sample(packed(), 20)
    for segments, pos in zip(batch.segments, batch.pos, strict=True):
        assert pos.tolist() == [i - segments.tolist().index(number) for i, number in enumerate(segments)]
    through = sample(packed(restart_positions=False), 20)
    assert through.pos is None
    np.testing.assert_array_equal(through.segments, batch.segments)


@pytest.mark.parametrize('causal', [False, True])
def test_padding_of_a_packed_row_changes_nothing(packed, causal):
    task = packed(causal)
    short, long = sample(task, 20), sample(task, 20, 300)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:, :20]), short, long)
    assert not long.loss_mask[:, 20:].any()
    assert not sample(task, 7).valid[:, 7:].any()


def test_masked_words_stay_in_their_document(packed):
    batch = sample(packed(causal=False, mask_rate=0.3, whole_words=True), 20)
    apart = 0
    for masked, segments in zip(batch.loss_mask, batch.segments, strict=True):
        hidden = [set(masked[segments == number].tolist()) for number in np.unique(segments)]
        assert all(len(one) == 1 for one in hidden)
        apart += len({*map(min, hidden)}) > 1
    assert apart > 100


def test_packed_documents_of_the_test_split(packed):
    task = packed()
    assert bytes(task.data['content'].tolist()).decode() == ''.join(TRAINED)
    batch = sample(task.held_out(), 20)
    assert {piece for row in range(20) for piece in pieces(batch, row)[1:-1]} == {'XYZ'}


def test_text_without_a_document_of_two_tokens_is_refused(tmp_path):
    (tmp_path / 'a.txt').write_text('a')
    with pytest.raises(UserError, match='no document of two tokens'):
        _ = tasks.make(f"lm({str(tmp_path / 'a.txt')!r}, documents='packed')", causal=True).data
