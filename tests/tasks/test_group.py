"""Word problems of groups against products of named elements."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError
from mha.tasks import _groups
from mha.training import metrics
from tests.tasks.drawn import LENGTHS, check_padding, check_protocol, close, make, read, sample

CASES = [
    ('group', True),
    ("group('A4xZ5')", True),
    ("group('Z60')", True),
    ("group('S3xZ2xA3', every=False)", True),
    ("group('Z7', every=False)", False),
]
ORDERS = {'Z1': 1, 'Z60': 60, 'S1': 1, 'S4': 24, 'A2': 1, 'A3': 3, 'A5': 60, 'A6': 360, 'A4xZ5': 60, 'S3xZ2xA3': 36}


def product(name, one, other):
    """Product of two elements by their printed forms; the first one is applied first."""
    found = []
    for factor, p, q in zip(name.split('x'), one.split(','), other.split(','), strict=True):
        if factor[0] == 'Z':
            found.append(str((int(p) + int(q)) % int(factor[1:])))
        else:
            found.append(''.join(q[int(place)] for place in p))
    return ','.join(found)


@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize(('text', 'causal'), CASES)
def test_answers(text, causal, length):
    task = make(text, causal)
    for word, answer, places in read(text, length, causal):
        elements = [task.alphabet[symbol] for symbol in word]
        assert len(elements) == length
        found = [*itertools.accumulate(elements, lambda p, q: product(task.name, p, q))]
        assert [task.classes[label] for label in answer] == (found if task.every else found[-1:])
        assert places == ([*range(length)] if task.every else [length])


@pytest.mark.parametrize(('name', 'order'), ORDERS.items())
def test_groups(name, order):
    names, table = _groups.group(name)
    assert len({*names}) == len(names) == order
    np.testing.assert_array_equal(table[0], np.arange(order))  # the identity
    np.testing.assert_array_equal(table[:, 0], np.arange(order))
    np.testing.assert_array_equal(np.sort(table, 0), np.arange(order)[:, None] + np.zeros((1, order), int))
    np.testing.assert_array_equal(np.sort(table, 1), np.arange(order) + np.zeros((order, 1), int))
    assert all(
        names[table[p, q]] == product(name, names[p], names[q])
        for p, q in itertools.product(range(order), [0, order // 2, order - 1])
    )
    for place, factor in enumerate(name.split('x')):
        elements, number = [element.split(',')[place] for element in names], int(factor[1:])
        assert factor[0] == 'Z' or {*elements} <= {''.join(p) for p in itertools.permutations('012345'[:number])}
        if factor[0] == 'A':
            assert not any(sum(a > b for a, b in itertools.combinations(p, 2)) % 2 for p in elements)


def test_which_groups_are_solvable():
    """Commutators of A5 are all of it; those of A4xZ5 and Z60 are a smaller group (Merrill et al., 2024)."""
    for name, number in (('A5', 60), ('A4xZ5', 4), ('Z60', 1)):
        _, table = _groups.group(name)
        inverse = (table == 0).argmax(1)
        p, q = np.mgrid[: len(table), : len(table)]
        assert len({*table[table[p, q], table[inverse[p], inverse[q]]].ravel().tolist()}) == number


@pytest.mark.parametrize(
    ('steps', 'every', 'causal'), [('last', False, False), ('last', False, True), ('all', True, True)]
)
def test_s5_is_one_of_them(steps, every, causal):
    one, two = sample(f's5({steps!r})', causal, 7), sample(f"group('S5', every={every})", causal, 7)
    assert all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(two)))


def test_worked_examples():
    assert [product('S3', '102', '120'), product('S3', '210', '120'), product('Z60', '7', '9')] == ['210', '021', '16']


def test_products_are_uniform():
    labels = np.array([answer for _, answer, _ in read("group('Z7', every=False)", 7, False, seeds=16)])
    assert all(close((labels == label).sum(), len(labels), 1 / 7) for label in range(7))


def test_accuracy_at_every_position():
    """Rows that `eval.py --per_position` writes, one per element."""
    task, batch = make('group', True), sample('group', True, 7)
    right = np.eye(task.num_classes)[batch.targets] * 9
    wrong = np.eye(task.num_classes)[(batch.targets + 1) % task.num_classes] * 9
    logits = np.where((np.arange(batch.tokens.shape[1]) < 5)[:, None], right, wrong)
    rows = metrics.position_rows(7, jax.device_get(metrics.count(jnp.asarray(logits), batch, task)))
    assert [row['accuracy'] for row in rows] == [1] * 5 + [0] * 2


@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize(('text', 'causal'), CASES)
def test_protocol(text, causal, length):
    check_protocol(text, causal, length)


@pytest.mark.parametrize(('text', 'causal'), CASES)
def test_the_padding_does_not_change_the_example(text, causal):
    check_padding(text, causal, 7)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('group', 'every=True is for causal models, which see no later elements - set every=False'),
        ("group('B5', every=False)", "name must be S5, A5, Z60 or the like, or a product such as 'A4xZ5', not 'B5'"),
        ("group('A4xZ0', every=False)", "not 'A4xZ0'"),
        ("group('S7', every=False)", 'the group S7 has more than 1,024 elements'),
        ("group('S5xZ9', every=False)", 'the group S5xZ9 has more than 1,024 elements'),
        ("group('Z9999', every=False)", 'the group Z9999 has more than 1,024 elements'),
    ],
)
def test_errors(text, message):
    with pytest.raises(UserError, match=message) as error:
        tasks.make(text)
    assert '\n' not in str(error.value)
