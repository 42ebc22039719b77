"""ListOps against a parser and evaluator in plain Python."""

import functools
import itertools
import math
import statistics
from collections import Counter

import jax
import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError

LENGTHS, MAX_LENGTH, BATCH = (1, 2, 3, 4, 7, 20), 20, 64
RELEASED = 'listops(max_depth=3, max_arguments=3, released=True)'
CASES = ['listops', 'listops(max_depth=3, max_arguments=2)', 'listops(released=True)', RELEASED]
OPERATORS = {
    '[MIN': min,
    '[MAX': max,
    '[MED': lambda values: int(statistics.median(values)),
    '[SM': lambda values: sum(values) % 10,
}


@functools.cache
def sampler(text, batch, max_length):
    """One compiled program per task, for every length."""
    return jax.jit(lambda key, length: tasks.make(text).batch(key, batch, length, max_length))


@functools.cache
def read(text, length, seeds=1, batch=BATCH, max_length=MAX_LENGTH):
    """Words, as strings, and answers."""
    task, found = tasks.make(text), []
    for seed in range(seeds):
        drawn = jax.tree.map(np.asarray, sampler(text, batch, max_length)(jax.random.key(seed), length))
        for tokens, targets in zip(drawn.tokens, drawn.targets, strict=True):
            found.append(([task.alphabet[symbol] for symbol in tokens[:length]], int(targets[length])))
    return found


def parse(word):
    """The tree, a digit or [operator, argument, ..], and what stands behind it."""
    first, *rest = word
    if first not in OPERATORS:
        return int(first), rest
    tree = [first]
    while rest[0] != ']':
        argument, rest = parse(rest)
        tree.append(argument)
    return tree, rest[1:]


def evaluate(tree):
    return tree if isinstance(tree, int) else OPERATORS[tree[0]]([evaluate(argument) for argument in tree[1:]])


def depth(tree):
    return 1 if isinstance(tree, int) else 1 + max(depth(argument) for argument in tree[1:])


def nodes(tree):
    """All operators of a tree."""
    return [] if isinstance(tree, int) else [tree, *(node for argument in tree[1:] for node in nodes(argument))]


def check(text, word, answer):
    task = tasks.make(text)
    tree, blanks = parse(word)
    assert set(blanks) <= {'.'}
    assert answer == evaluate(tree)
    assert depth(tree) <= task.max_depth
    assert all(2 <= len(node) - 1 <= task.max_arguments for node in nodes(tree))
    assert isinstance(tree, int) == (len(word) < 4)


@pytest.mark.parametrize(
    ('word', 'answer'),
    [('[MAX 4 [SM 9 3 ] 1 ]', 4), ('[MED 2 9 4 7 ]', 5), ('[MIN 3 8 ] . .', 3), ('[MED 1 2 ]', 1), ('7', 7)],
)
def test_the_oracle_agrees_with_the_worked_examples(word, answer):
    assert evaluate(parse(word.split())[0]) == answer


@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize('text', CASES)
def test_answers(text, length):
    for word, answer in read(text, length):
        check(text, word, answer)


@pytest.mark.slow
@pytest.mark.parametrize('length', [*LENGTHS, 41, 100, 500])
def test_a_thousand_answers(length):
    """And trees fill their length, if it is long."""
    found = read('listops', length, batch=1000, max_length=500)
    for word, answer in found:
        check('listops', word, answer)
    assert length < 41 or np.mean([len(parse(word)[1]) / length for word, _ in found]) < 0.1


def test_distribution():
    """What the module promises of the root, and of symbols."""
    found = [parse(word)[0] for word, _ in read('listops', 20, seeds=32)]
    arguments = Counter(len(tree) - 1 for tree in found)
    assert all(abs(arguments[n] / len(found) - 1 / 9) < 5 * np.sqrt(8 / 81 / len(found)) for n in range(2, 11))
    kinds = Counter(node[0] for tree in found for node in nodes(tree))
    assert all(abs(kinds[kind] / kinds.total() - 1 / 4) < 5 * np.sqrt(3 / 16 / kinds.total()) for kind in OPERATORS)
    digits = Counter(x for tree in found for node in nodes(tree) for x in node[1:] if isinstance(x, int))
    assert all(abs(digits[d] / digits.total() - 1 / 10) < 5 * np.sqrt(0.09 / digits.total()) for d in range(10))
    triples = [[isinstance(x, list) for x in tree[1:]] for tree in found if len(tree) == 4]
    operators = Counter(map(sum, triples))
    for number, share in {1: 9 / 16, 2: 6 / 16, 3: 1 / 16}.items():
        assert abs(operators[number] / len(triples) - share) < 5 * np.sqrt(share * (1 - share) / len(triples))
    share = operators[1] / 3 + operators[2] * 2 / 3 + operators[3]
    assert all(abs(count - share) < 5 * np.sqrt(len(triples) / 4) for count in np.sum(triples, axis=0))


def law(length, depth, most=3, deepest=3):
    """Every shape of a tree of Long Range Arena with so many symbols, and its probability, by enumeration."""
    if length == 1:
        yield 'x', 1.0 if depth == deepest else 3 / 4
    if depth == deepest:
        return
    for number in range(2, most + 1):
        for sizes in itertools.product(range(1, length), repeat=number):
            if sum(sizes) == length - 2:
                for shapes in itertools.product(*(list(law(size, depth + 1, most, deepest)) for size in sizes)):
                    shape, shares = zip(*shapes, strict=True)
                    yield f'[{"".join(shape)}]', math.prod(shares) / 4 / (most - 1)


def shape(tree):
    return 'x' if isinstance(tree, int) else f'[{"".join(map(shape, tree[1:]))}]'


@pytest.mark.parametrize('length', [4, 5, 7, 8, 9, 11, 12])
def test_the_released_law(length):
    """Shapes of trees given their length, and of what is left: operators and digits are uniform."""
    expected = dict(law(length, 1))
    found = [parse(word)[0] for word, _ in read(RELEASED, length, seeds=32)]
    shapes = Counter(map(shape, found))
    if not expected:  # no tree has so many symbols: the next smaller one
        shorter = max(n for n in range(length) if dict(law(n, 1)))
        expected = dict(law(shorter, 1))
    total = sum(expected.values())
    assert {*shapes} <= {*expected}
    for each, share in expected.items():
        share /= total
        assert abs(shapes[each] / len(found) - share) < 5 * np.sqrt(share * (1 - share) / len(found)) + 1e-9
    kinds = Counter(node[0] for tree in found for node in nodes(tree))
    assert all(abs(kinds[kind] / kinds.total() - 1 / 4) < 5 * np.sqrt(3 / 16 / kinds.total()) for kind in OPERATORS)


@pytest.mark.slow
def test_the_released_trees_are_as_wide_and_deep_as_those_of_long_range_arena():
    """Means of the released generator's trees of 500 to 1000 symbols."""
    found = [parse(word) for word, _ in read('listops(released=True)', 700, batch=64, max_length=700)]
    operators = [node for tree, _ in found for node in nodes(tree)]
    assert not any(blanks for _, blanks in found)
    assert np.mean([len(node) - 1 for node in operators]) == pytest.approx(5.97, abs=0.15)
    assert np.mean([len(node) == 3 for node in operators]) == pytest.approx(0.113, abs=0.015)


def test_depth_is_reached():
    assert {depth(parse(word)[0]) for word, _ in read('listops(max_depth=3, max_arguments=2)', 20)} == {3}


@pytest.mark.parametrize('length', [1, 7])
@pytest.mark.parametrize('text', ['listops', 'listops(released=True)'])
def test_the_padding_does_not_change_the_example(text, length):
    batch, wide = (sampler(text, BATCH, most)(jax.random.key(0), length) for most in (7, MAX_LENGTH))
    for one, two in zip(jax.tree.leaves(batch), jax.tree.leaves(wide), strict=True):
        np.testing.assert_array_equal(two[:, : one.shape[1]], one)
        assert not two[:, one.shape[1] :].any()


@pytest.mark.parametrize('length', LENGTHS)
def test_protocol(length):
    batch = jax.tree.map(np.asarray, sampler('listops', BATCH, MAX_LENGTH)(jax.random.key(0), length))
    slot = np.broadcast_to(np.arange(MAX_LENGTH + 1), batch.tokens.shape)
    assert batch.tokens.dtype == batch.targets.dtype == np.int32
    np.testing.assert_array_equal(batch.valid, slot <= length)
    np.testing.assert_array_equal(batch.tokens == 16, slot == length)
    np.testing.assert_array_equal(batch.metric_mask, slot == length)
    assert 0 <= batch.tokens.min() <= batch.tokens.max() <= 16
    assert 0 <= batch.targets.min() <= batch.targets.max() < 10


def test_description():
    task = tasks.make('listops')
    assert (task.vocab_size, task.num_classes, task.num_tokens(7)) == (17, 10, 8)
    assert task.chance == 0.1
    batch = sampler('listops', BATCH, MAX_LENGTH)(jax.random.key(0), 4)
    shown, answer = task.readable(jax.tree.map(lambda leaf: leaf[0], batch))
    assert len(shown.split()) == 4
    assert str(evaluate(parse(shown.split())[0])) == answer


@pytest.mark.parametrize('name', ['max_depth', 'max_arguments'])
def test_errors(name):
    with pytest.raises(UserError, match=f'{name} must be at least 2, not 1'):
        tasks.make(f'listops({name}=1)')
