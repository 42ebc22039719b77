"""Recall, retrieval and state tracking against plain-Python oracles."""

import itertools
from collections import Counter

import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError
from tests.tasks import haystacks
from tests.tasks.drawn import (
    BATCH,
    LENGTHS,
    MAX_LENGTH,
    check_padding,
    check_protocol,
    close,
    make,
    read,
    sample,
    words,
)

# What a person types, and whether for a causal model.
CASES = [
    ('mqar(12, 3)', False),
    ('mqar(12, 2, 1.0)', True),
    ('mqar(12, 2, random_filler=False)', True),
    ('induction(keys=20, values=4)', False),
    ('needle', False),
    ('needle(digits=2, filler=1, depth=0.3)', False),
    ('needle(digits=2, keys=3, queries=2)', False),
    ('needle(digits=1, keys=2, values=2)', False),
    ('needle(digits=2, values=2)', False),
    ('variable_tracking(hops=1, chains=2)', False),
    ('variable_tracking(hops=3)', False),
    ('common_words(common=2, often=3, rare=2, words=9)', False),
    ('freq_words', False),
    ('flip_flop', False),
    ('flip_flop(0.4)', True),
    ("flip_flop(reads='last')", True),
    ('dyck', False),
    ('dyck(k=3, depth=2)', False),
    ("dyck('next')", False),
    ("dyck('next', k=6, depth=3)", False),
    ('s5', False),
    ("s5(steps='all')", True),
]


# --- oracles: they read a word, check its form, and answer -----------------------------------------------------------


def mqar(task, word, length):
    """The values of the keys that the rest asks for, and where it may do so, by number of the key."""
    length = max(length, 4)
    pairs = min(task.pairs, length // 4)
    keys, values = word[: 2 * pairs : 2], word[1 : 2 * pairs : 2]
    assert len({*keys}) == len({*values}) == pairs
    assert all(1 <= key < task.inputs // 2 <= value < task.inputs for key, value in zip(keys, values, strict=True))
    value = dict(zip(keys, values, strict=True))
    slots = range(2 * pairs, 2 * pairs + (length - 2 * pairs) // 2 * 2, 2)
    places = {key: [slot for slot in slots if word[slot] == key] for key in keys}
    if not task.random_filler:
        assert Counter(word[2 * pairs :]) == Counter([*keys, *[0] * (len(word) - 3 * pairs)])
        assert all(len(place) == 1 for place in places.values())
    return value, places


def induction(task, word, length):
    assert len(word) == 2 * length + 1
    *rest, query = word
    keys, values = rest[::2], rest[1::2]
    assert len({*keys}) == length
    assert all(key < task.keys <= value < task.inputs for key, value in zip(keys, values, strict=True))
    return [values[keys.index(query)] - task.keys]


def flip_flop(task, word, length):
    """The bits of all reads."""
    shown = ''.join('01wri'[symbol] for symbol in word)
    assert len(shown) == 2 * max(length, 2) - 1
    assert shown[0] == 'w'
    assert shown[-1] == 'r'
    found, memory = [], None
    for instruction, bit in itertools.zip_longest(shown[::2], shown[1::2]):
        assert instruction in 'wri'
        assert bit in ('0', '1', None)
        memory = bit if instruction == 'w' else memory
        if instruction == 'r':
            assert bit in (memory, None)
            found.append(int(memory))
    return found if task.causal and task.reads == 'all' else found[-1:]


def brackets(word, k):
    """The kinds of brackets that are open at the end and how deep the string was; None if a closing one is wrong."""
    stack, deepest = [], 0
    for symbol in word:
        if symbol < k:
            stack.append(symbol)
        elif not stack or stack.pop() != symbol - k:
            return None
        deepest = max(deepest, len(stack))
    return stack, deepest


def dyck(task, word, length):
    found = brackets(word, task.k)
    if task.form == 'next':
        stack, deepest = found
        assert len(word) == length
        assert deepest <= task.depth
        return stack[-1:]
    assert len(word) == max(length // 2 * 2, 2)
    balanced = found is not None and not found[0]
    if balanced:
        assert found[1] <= task.depth
    elif length <= MAX_LENGTH:  # one other symbol would balance it; long strings take a while to mend
        others = ([*word[:i], symbol, *word[i + 1 :]] for i in range(len(word)) for symbol in range(2 * task.k))
        mended = [brackets(other, task.k) for other in others]
        assert any(found and not found[0] and found[1] <= task.depth for found in mended)
    return [int(balanced)]


def s5(task, word, length):
    assert len(word) == length
    elements, found = [0, 1, 2, 3, 4], []
    for name in [task.alphabet[symbol] for symbol in word]:
        elements = [int(name[element]) for element in elements]
        found.append(task.alphabet.index(''.join(map(str, elements))))
    return found if task.steps == 'all' else found[-1:]


ORACLES = haystacks.ORACLES | {'induction': induction, 'flip_flop': flip_flop, 'dyck': dyck, 's5': s5}


def check(text, causal, word, answer, places, length):
    task = make(text, causal)
    if text.startswith('mqar'):
        value, asked = mqar(task, word[: max(length, 4)], length)
        if not causal:
            assert answer == [value[word[-1]]]
            return
        keys = [word[place] for place in places]
        assert sorted(keys) == sorted(value)
        assert all(place in asked[key] for place, key in zip(places, keys, strict=True))
        assert answer == [value[key] for key in keys]
    else:
        assert answer == ORACLES[text.split('(')[0]](task, word, length)


@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize(('text', 'causal'), CASES)
def test_answers(text, causal, length):
    for word, answer, places in read(text, length, causal):
        check(text, causal, word, answer, places, length)


@pytest.mark.slow
@pytest.mark.parametrize(('text', 'causal'), CASES)
def test_a_thousand_answers(text, causal):
    text = text.replace('keys=20', 'keys=500').replace('words=9', 'words=300')
    for length in (*LENGTHS, 41, 100, 500):
        batch = sample(text, causal, length, batch=1000, max_length=500)
        for word, answer, places in words(make(text, causal), batch, length):
            check(text, causal, word, answer, places, length)


def symbols(task, text):
    return [task.alphabet.index(symbol) for symbol in text.split()]


@pytest.mark.parametrize(
    ('text', 'word', 'answer'),
    [
        ('induction(keys=8, values=4)', 'k3 v0 k1 v2 k7 v0 k1', 'v2'),
        ('needle', 't q a # 5 3 8 1 0 x m k w b ?', '5 3 8 1 0'),
        ('needle(digits=2, keys=3, queries=2)', 't # K 5 3 q a # A 0 7 # R 9 8 m x ? R K', '9 8 5 3'),
        ('needle(digits=2, values=2)', 't # 5 3 q a # 0 7 x ?', '5 3 0 7'),
        ('variable_tracking(hops=2)', 't q K = 3 s Q = K m x A = Q z ? 3', 'K Q A'),
        ('variable_tracking(hops=2, chains=2)', 'j I = 4 K = 0 Q = K e S = Q W = I J = W ? 0', 'K Q S'),
        ('common_words(common=2, often=3, rare=1)', 'w7 w2 w5 w2 w7 w9 w7 w2', 'w7 w2'),
        ('flip_flop', 'w 1 i 0 i 1 r', '1'),
        ('flip_flop', 'w 0 w 1 r 1 i 0 r', '1'),
        ('dyck', '( [ ] )', '1'),
        ('dyck', '( [ ] ]', '0'),
        ("dyck('next')", '( [ ]', ')'),
        ('s5', '10234 12340', '21340'),
    ],
)
def test_oracles_agree_with_the_worked_examples(text, word, answer):
    task = make(text, False)
    word, oracle = symbols(task, word), ORACLES[text.split('(')[0]]
    length = {'i': len(word) // 2, 'f': (len(word) + 1) // 2}.get(text[0], len(word))
    assert [(task.answers or task.alphabet)[label] for label in oracle(task, word, length)] == answer.split()


def test_worked_example_of_mqar():
    word = [2, 8, 4, 7, 0, 0, 4, 0, 0, 0, 0, 0, 2, 0, 0, 0]
    assert mqar(make('mqar(12, 2, random_filler=False)', True), word, 16) == ({2: 8, 4: 7}, {2: [12], 4: [6]})


# --- what is random --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('text', ['mqar(12, 2, 1.0)', 'mqar(12, 2, random_filler=False)'])
def test_slots_of_mqar(text):
    """The first key's slot has the weights' distribution, the second one's that of a draw without replacement."""
    task = make(text, True)
    weight = np.arange(1, 9) ** (task.power - 1)
    weight /= weight.sum()
    second = [sum(weight[h] * weight[g] / (1 - weight[h]) for h in range(8) if h != g) for g in range(8)]
    found = [[], []]
    for word, _, places in read(text, 20, causal=True, seeds=16):
        value = [word[0], word[2]]
        for place in places:
            found[value.index(word[place])].append((place - 4) // 2)
    for slots, shares in zip(found, (weight, second), strict=True):
        assert len(slots) == 16 * BATCH
        assert all(close(slots.count(g), len(slots), shares[g]) for g in range(8))


def test_symbols_of_mqar():
    """Filler is any of the symbols, keys included; keys and values are any of theirs; any key is asked for."""
    words = [word for word, _, _ in read('mqar(12, 3)', 20, seeds=16)]
    last, key, value = (Counter(word[place] for word in words) for place in (19, 0, 3))  # 19 ends a slot
    assert all(close(last[symbol], len(words), 1 / 12) for symbol in range(12))
    assert all(close(key[symbol], len(words), 1 / 5) for symbol in range(1, 6))
    assert all(close(value[symbol], len(words), 1 / 6) for symbol in range(6, 12))
    assert close(sum(word[20] == word[0] for word in words), len(words), 1 / 3)


def test_induction_asks_for_every_pair():
    found = read('induction(keys=20, values=4)', 4, seeds=8)
    asked = Counter(word.index(word[-1]) // 2 for word, _, _ in found)
    first = Counter(word[0] for word, _, _ in found)
    assert all(close(asked[pair], len(found), 1 / 4) for pair in range(4))
    assert all(close(first[key], len(found), 1 / 20) for key in range(20))


@pytest.mark.parametrize('length', [7, 20])
def test_depth_of_the_needle(length):
    found = [word.index(36) for word, _, _ in read('needle', length, seeds=16)]
    places = length - 7 + 1
    assert all(close(found.count(place), len(found), 1 / places) for place in range(places))
    fixed = {word.index(11) for word, _, _ in read('needle(digits=2, filler=1, depth=0.3)', length)}
    assert len(fixed) == 1
    assert abs(fixed.pop() - 0.3 * (length - 4)) <= 0.5


def test_needle_at_the_end():
    assert {word.index(36) for word, _, _ in read('needle(6, depth=1.0)', 20)} == {12}


def test_needles_are_placed_and_asked_for_uniformly():
    """With two needles of three symbols among one letter and more: both places are independent."""
    found = [word for word, _, _ in read('needle(digits=1, keys=2, values=1)', 10, seeds=16)]
    places = Counter(
        tuple(slot - 3 * i for i, slot in enumerate(np.flatnonzero(np.array(word) == 36))) for word in found
    )
    for a, b in itertools.combinations_with_replacement(range(3), 2):
        assert close(places[a, b], len(found), (1 + (a < b)) / 9)
    asked = Counter(word[word.index(36) + 1] == word[-1] for word in found)
    assert close(asked[True], len(found), 1 / 2)


def test_chains_are_mixed_uniformly():
    text = 'variable_tracking(hops=1, chains=2)'
    task, orders = make(text, False), Counter()
    for word, _, _ in read(text, 20, seeds=16):
        owner = {}
        for symbol, equals, source in zip(word, word[1:], word[2:], strict=False):
            if task.alphabet[equals] == '=':
                owner[symbol] = owner.get(source, source)
        orders[''.join('01'[value == word[-1]] for value in owner.values())] += 1
    assert len(orders) == 6
    assert all(close(count, orders.total(), 1 / 6) for count in orders.values())


@pytest.mark.parametrize(
    ('text', 'length'), [('common_words(common=2, often=3, rare=2, words=9)', 20), ('freq_words', 53)]
)
def test_words_stand_anywhere(text, length):
    """The last word is each of those of an example as often as it occurs there, and any of the names."""
    words = [word for word, _, _ in read(text, length, seeds=16)]
    last = Counter(Counter(word)[word[-1]] for word in words)
    for count, places in Counter(Counter(words[0]).values()).items():
        assert close(last[count], len(words), count * places / len(words[0]))
    names = Counter(word[-1] for word in words if word[-1] or 'freq' not in text)
    assert all(close(count, names.total(), 1 / make(text, False).num_classes) for count in names.values())


@pytest.mark.parametrize(('text', 'causal', 'ignore'), [('flip_flop', False, 0.8), ('flip_flop(0.4)', True, 0.4)])
def test_instructions_of_flip_flop(text, causal, ignore):
    found = [word for word, _, _ in read(text, 20, causal, seeds=4)]
    inner = Counter(symbol for word in found for symbol in word[2:-1:2])
    number = sum(inner.values())
    assert close(inner[4], number, ignore)
    assert close(inner[2], number, (1 - ignore) / 2)
    assert close(inner[3], number, (1 - ignore) / 2)
    free = Counter(bit for word in found for symbol, bit in zip(word[:-1:2], word[1::2], strict=True) if symbol != 3)
    assert close(free[1], sum(free.values()), 1 / 2)


def test_walks_of_dyck():
    """Both moves are equally likely where both are allowed; the bound holds and is reached; kinds are uniform."""
    whole = [word for word, answer, _ in read('dyck(k=3, depth=2)', 20, seeds=16) if answer == [1]]
    assert close(sum(word[1] < 3 for word in whole), len(whole), 1 / 2)
    assert all(close(sum(word[0] == kind for word in whole), len(whole), 1 / 3) for kind in range(3))
    assert {brackets(word, 3)[1] for word in whole} == {1, 2}
    for text, depth in (("dyck('next')", 8), ("dyck('next', k=6, depth=3)", 3)):
        found = [brackets(word, make(text, False).k) for word, _, _ in read(text, 20, seeds=16)]
        assert max(deepest for _, deepest in found) == depth
    assert {len(stack) for stack, _ in found} == {2}
    assert {len(brackets(word, 6)[0]) for word, _, _ in read(text, 7, seeds=16)} == {1, 3}


@pytest.mark.parametrize('length', [2, 4, 7, 20])
@pytest.mark.parametrize(
    'text',
    [
        'induction(keys=20, values=4)',
        'needle',
        'needle(digits=2, keys=3, queries=2)',
        'flip_flop',
        'dyck',
        "dyck('next')",
        's5',
        'mqar(12, 3)',
    ],
)
def test_labels_are_balanced(text, length):
    """Within five standard errors of chance, each answer symbol and class."""
    task = make(text, False)
    labels = np.array([answer for _, answer, _ in read(text, length, seeds=16)])
    classes = range(6, 12) if text.startswith('mqar') else range(task.num_classes)
    for label in classes:
        assert all(close(count, len(labels), task.chance) for count in (labels == label).sum(0))


# --- the input protocol ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize(('text', 'causal'), CASES)
def test_protocol(text, causal, length):
    check_protocol(text, causal, length)


NUMBERS = {'mqar(12, 2, 1.0)', 'needle(digits=2, filler=1, depth=0.3)', 'flip_flop(0.4)', 'dyck(k=3, depth=2)'}
"""Cases that differ from another in numbers alone."""


@pytest.mark.parametrize(
    ('text', 'causal'), [pytest.param(*case, marks=[pytest.mark.slow] * (case[0] in NUMBERS)) for case in CASES]
)
def test_the_padding_does_not_change_the_example(text, causal):
    check_padding(text, causal, 7)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('mqar(pairs=0)', 'pairs must be at least 1, not 0'),
        ('mqar(9, 4)', r'vocabulary must be at least 2 \* pairs \+ 2 = 10, not 9'),
        ('mqar(power=0)', 'power must be above 0, not 0'),
        ('mqar(random_filler=1)', 'random_filler must be True or False, not 1'),
        ('induction(keys=0)', 'keys must be at least 1, not 0'),
        ('induction(values=1)', 'values must be at least 2, not 1'),
        ('needle(digits=0)', 'digits must be at least 1, not 0'),
        ('needle(filler=27)', 'filler must be from 1 to 26, not 27'),
        ('needle(depth=1.5)', 'depth must be from 0 to 1, not 1.5'),
        ('needle(queries=2)', 'queries must be at most keys=1, not 2'),
        ('needle(keys=2, depth=0.5)', 'depth must be None for several needles, not 0.5'),
        ('variable_tracking(hops=13, chains=2)', r'variables must be at least chains \* \(hops \+ 1\) = 28, not 26'),
        ('common_words(rare=6)', 'rare must be below often=6, not 6'),
        ('common_words(words=2)', 'words must be at least common=3, not 2'),
        ('freq_words(alpha=1)', 'alpha must be from 1.1 to 4, not 1'),
        ('flip_flop(1.1)', 'ignore must be from 0 to 1, not 1.1'),
        ("flip_flop(reads='first')", "reads must be 'all' or 'last', not 'first'"),
        ("flip_flop(reads='last')", "reads='last' is for causal models"),
        ("s5(steps='all')", "steps='all' is for causal models"),
        ("dyck('nxt')", "form must be 'recognition' or 'next', not 'nxt'"),
        ('dyck(k=0)', "k must be at least 1 for form='recognition', not 0"),
        ("dyck('next', k=1)", "k must be at least 2 for form='next', not 1"),
        ("dyck('next', depth=1)", "depth must be at least 2 for form='next', not 1"),
    ],
)
def test_errors(text, message):
    with pytest.raises(UserError, match=message) as error:
        tasks.make(text)
    assert '\n' not in str(error.value)


def test_too_few_keys_for_the_length():
    task = make('induction(keys=20, values=4)', False)
    assert task.num_tokens(20) == 42
    with pytest.raises(UserError, match='21 pairs need as many keys, not 20 - set keys=21 or more'):
        task.num_tokens(21)


def test_too_few_words_for_the_length():
    task = make('common_words(common=2, often=3, rare=2, words=9)', False)
    assert task.num_tokens(20) == 22
    with pytest.raises(UserError, match='length 21 needs 10 words - set words=10 or more'):
        task.num_tokens(21)
