"""In-context languages: strings walk through the automaton of their example, and legal letters count as right."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError
from mha.training import metrics
from tests.tasks.test_sequence_draws import uniform

MAX_LENGTH, BATCH = 120, 512


@functools.cache
def make(text='icll(longest=9)'):
    return tasks.make(text, causal=True)


@functools.cache
def sample(length, max_length=MAX_LENGTH):
    keys = jax.random.split(jax.random.key(0), BATCH)
    return jax.device_get(jax.jit(lambda keys: make().examples(keys, length, max_length))(keys))


@functools.cache
def automata():
    """Edges of the automata of the batch: per state, a dictionary from letters to states."""
    keys = jax.random.split(jax.random.key(0), BATCH)
    found = jax.jit(jax.vmap(lambda key: make().automaton(jax.random.split(key, 3)[0])))(keys)
    return [
        [dict(zip(a[:k], b[:k], strict=True)) for k, a, b in zip(count, letters, ends, strict=True)]
        for count, letters, ends in zip(*(x.tolist() for x in found), strict=True)
    ]


def strings():
    """Strings of every example, all but the last of which are whole."""
    for row in sample(MAX_LENGTH).tokens:
        yield ''.join(make().alphabet[symbol] for symbol in row).split('|')


@pytest.mark.parametrize('length', [1, 7, MAX_LENGTH])
def test_legal_letters(length):
    """Every symbol is followed by a letter of its state or, where none is asked for, by the separator."""
    batch, separator = sample(length), make().num_classes
    for i, edges in enumerate(automata()):
        state = 0
        for slot in range(length):
            symbol = batch.tokens[i, slot]
            state = 0 if symbol == separator else edges[state][symbol]
            if batch.metric_mask[i, slot]:
                assert batch.legal[i, slot] == sum(1 << letter for letter in edges[state])
                assert batch.targets[i, slot] in edges[state]
            if slot + 1 < length:
                after = batch.tokens[i, slot + 1]
                assert batch.metric_mask[i, slot] == (after != separator)
                assert batch.targets[i, slot] == (after if after != separator else 0)
    np.testing.assert_array_equal(batch.loss_mask, batch.metric_mask)
    assert (batch.valid == (np.arange(MAX_LENGTH) < length)).all()
    for leaf in (batch.tokens, batch.targets, batch.legal, batch.metric_mask):
        assert not leaf[:, length:].any()


def test_automata_have_the_released_law():
    """Numbers of states and letters are uniform in 4 .. 12 and 4 .. 18, those of edges in 1 .. 3; edges have distinct
    letters and lead to distinct other states."""
    states = []
    for edges in automata():
        for number, state in enumerate(edges):
            assert len({*state.values()}) == len(state)
            assert number not in state.values()
        states.append(1 + max(end for state in edges for end in state.values()))
    assert min(states) in (3, 4)  # the last state may have no edge that leads there
    assert max(states) == 12
    assert np.mean(states) == pytest.approx(8, abs=0.5)
    letters = [len({letter for state in edges for letter in state}) for edges in automata()]
    assert min(letters) >= 4
    assert max(letters) >= 15
    uniform([len(edges[0]) for edges in automata()], [1, 2, 3])
    uniform([next(iter(edges[0])) for edges in automata()], range(18))


def test_strings_have_all_lengths():
    uniform([len(first) for first, *_ in strings()], range(1, 10))
    uniform([len(third) for _, _, third, *_ in strings()], range(1, 10))


def test_moves_are_uniform():
    """Frequencies of the edges of the first state, at the first letters of the strings."""
    found = []
    for edges, (first, second, *_) in zip(automata(), strings(), strict=True):
        names = [make().alphabet[letter] for letter in edges[0]]
        found += [names.index(string[0]) for string in (first, second) if len(names) == 3]
    uniform(found, range(3))


def test_padding_changes_nothing():
    for leaf, other in zip(jax.tree.leaves(sample(7, 7)), jax.tree.leaves(sample(7)), strict=True):
        np.testing.assert_array_equal(leaf, other[:, :7])


def test_legal_predictions_are_right():
    """A model that predicts the highest legal letter is never wrong; one that predicts a constant sometimes is not."""
    task, batch = make(), jax.tree.map(jnp.asarray, sample(MAX_LENGTH))
    highest = jnp.asarray(np.log2(np.maximum(batch.legal, 1)).astype(np.int32))
    for predicted, expected in ((highest, 1.0), (jnp.full_like(highest, 3), None)):
        row = metrics.row(MAX_LENGTH, metrics.count(jax.nn.one_hot(predicted, 18), batch, task))
        legal = np.asarray(batch.legal >> predicted) % 2 == 1
        share = legal[np.asarray(batch.metric_mask)].mean()
        assert row['accuracy'] == pytest.approx(share if expected is None else expected)
    constant = [(np.asarray(batch.legal) >> letter & 1).sum() for letter in range(18)]
    assert (highest != batch.targets)[batch.metric_mask].mean() > 0.2
    assert row['baseline'] == pytest.approx(max(constant) / np.asarray(batch.metric_mask).sum())
    assert 0.08 < share < 0.15
    assert task.chance == pytest.approx(2 / 18)


@pytest.mark.parametrize(
    ('text', 'causal', 'message'),
    [
        ('icll(edges=12)', True, 'states must be above edges=12, not 12'),
        ('icll(letters=3)', True, 'letters must be above edges=3, not 3'),
        ('icll', False, r'set model\.causal=True'),
    ],
)
def test_errors(text, causal, message):
    with pytest.raises(UserError, match=message):
        tasks.make(text, causal=causal)
