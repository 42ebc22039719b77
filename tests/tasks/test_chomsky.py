"""The fifteen tasks of Delétang et al. (2023) against plain-Python oracles, and what is drawn how often."""

import functools
import itertools
import math
import operator
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mha import tasks
from mha.tasks import _binary

# Lengths of interest: the shortest, an even and an odd one, and the longest that the compiled program serves.
LENGTHS, MAX_LENGTH, BATCH = (1, 2, 3, 4, 7, 20), 20, 64
SLOW_LENGTHS, SLOW_BATCH = (41, 100, 500), 1000

# How a person reads input symbols and classes, where not as digits.
SYMBOLS = {
    'modular_arithmetic': ('01234+-* ', '01234'),
    'cycle_navigation': ('-0+', '01234'),
    'stack_manipulation': (['0', '1', 'pop', 'push0', 'push1'], '01.'),
    'modular_arithmetic_brackets': ('01234+-*()x', '01234'),
    'solve_equation': ('01234+-()x=', '01234'),
    'missing_duplicate_string': ('01?.', '01'),
    'binary_addition': ('01+', '01.'),
    'binary_multiplication': ('01*', '01.'),
}


def symbols(text):
    return SYMBOLS.get(text.split('(')[0], ('01234', '01234'))


# --- what each task asks ---------------------------------------------------------------------------------------------


def even_pairs(word):
    return [sum(a != b for a, b in itertools.pairwise(word)) % 2]


def modular_arithmetic(word):
    text = ''.join('01234+-*'[symbol] for symbol in word)
    assert re.fullmatch(r'[0-4]([+*-][0-4])*', text)
    return [eval(text) % 5]


def parity_check(word):
    return [sum(word) % 2]


def cycle_navigation(word):
    place = 0
    for step in word:
        place = (place + {0: -1, 1: 0, 2: 1}[step]) % 5
    return [place]


def stack_manipulation(word):
    first_action = next((i for i, symbol in enumerate(word) if symbol > 1), len(word))
    stack = word[:first_action]
    assert stack
    for action in word[first_action:]:
        if action == 2:
            stack = stack[:-1]
        else:
            stack = [*stack, {3: 0, 4: 1}[action]]
    return [*stack[::-1], 2] + [0] * (len(word) - len(stack))


def reverse_string(word):
    return word[::-1]


def first_part(text):
    """The size of the expression that `text` begins with."""
    if text[0] != '(':
        return 2 if text[0] == '-' else 1
    depths = itertools.accumulate({'(': 1, ')': -1}.get(character, 0) for character in text)
    return list(depths).index(0) + 1


def split(text):
    """A, the operator and B of `(A op B)`."""
    assert (text[0], text[-1]) == ('(', ')')
    size = first_part(text[1:])
    return text[1 : 1 + size], text[1 + size], text[2 + size : -1]


def value(text):
    """The value of an expression. The definition read as a grammar: anything else fails."""
    if len(text) < 5:
        assert re.fullmatch(r'-?[0-4]|\(-?[0-4]\)', text)
        return eval(text)
    a, symbol, b = split(text)
    return {'+': operator.add, '-': operator.sub, '*': operator.mul}[symbol](value(a), value(b))


def modular_arithmetic_brackets(word):
    return [value(''.join('01234+-*()'[symbol] for symbol in word)) % 5]


def solve_equation(word):
    """The one digit that makes the equation true."""
    if len(word) < 3:
        assert not any(word)
        return [0]
    text, result = ''.join('01234+-()x='[symbol] for symbol in word).split('=')
    assert text.count('x') == 1
    (found,) = [digit for digit in range(5) if value(text.replace('x', str(digit))) % 5 == int(result)]
    return [found]


def duplicate_string(word):
    return word + word


def missing_duplicate_string(word):
    """The one symbol that would double the string."""
    if len(word) == 1:
        return [1]
    half = len(word) // 2
    (hole,) = [i for i, symbol in enumerate(word[: 2 * half]) if symbol == 2]
    return [word[(hole + half) % (2 * half)]]


def odds_first(word):
    return word[0::2] + word[1::2]


def odds_first_released(word):
    return word[1::2] + word[0::2]


def number(bits):
    """Lowest bit first."""
    return sum(bit << i for i, bit in enumerate(bits))


def terminated(result, size):
    """A number with its lowest bit first, the terminator, and zeros, `size` symbols in all."""
    bits = [int(bit) for bit in f'{result:b}'[::-1]]
    return [*bits, 2] + [0] * (size - 1 - len(bits))


def operands(word):
    n, m = word[: word.index(2)], word[word.index(2) + 1 :]
    assert number(n) > 0
    assert number(m) > 0
    return number(n), number(m)


def binary_addition(word):
    return terminated(sum(operands(word)) if len(word) > 2 else number(word), len(word) + 1)


def binary_multiplication(word):
    if len(word) <= 2:
        return {1: [2], 2: [0, 2]}[len(word)]
    return terminated(math.prod(operands(word)), len(word))


def compute_sqrt(word):
    x = number(word[::-1])
    assert x > 0
    return [int(bit) for bit in f'{math.isqrt(x):0{-(-len(word) // 2)}b}']


def bucket_sort(word):
    return sorted(word)


ORACLES = {
    'even_pairs': even_pairs,
    'modular_arithmetic': modular_arithmetic,
    "modular_arithmetic(even='add')": modular_arithmetic,
    'parity_check': parity_check,
    'cycle_navigation': cycle_navigation,
    'stack_manipulation': stack_manipulation,
    'reverse_string': reverse_string,
    'modular_arithmetic_brackets': modular_arithmetic_brackets,
    'solve_equation': solve_equation,
    'duplicate_string': duplicate_string,
    'missing_duplicate_string': missing_duplicate_string,
    'odds_first': odds_first,
    "odds_first(order='released')": odds_first_released,
    'binary_addition': binary_addition,
    'binary_multiplication': binary_multiplication,
    'compute_sqrt': compute_sqrt,
    'bucket_sort': bucket_sort,
    'bucket_sort(symbols=3)': bucket_sort,
}
# As a person reads them; what follows a terminator is left out.
EXAMPLES = [
    ('even_pairs', '001110', '0'),
    ('even_pairs', '0101001', '1'),
    ('even_pairs', '1', '0'),
    ('modular_arithmetic', '3-4*2+1', '1'),
    ('modular_arithmetic', '1+2*3-4', '3'),
    ('modular_arithmetic', '1-1-1', '4'),
    ('parity_check', '1010100', '1'),
    ('cycle_navigation', '+0++-', '2'),
    ('stack_manipulation', '0 1 1 0 push1 pop pop', '1 1 0 .'),
    ('stack_manipulation', '1 1 0 pop pop pop', '.'),
    ('stack_manipulation', '1 0 pop push1 push0', '0 1 1 .'),
    ('stack_manipulation', '1', '1 .'),
    ('reverse_string', '011010', '010110'),
    ('modular_arithmetic_brackets', '(3*(-2))', '4'),
    ('modular_arithmetic_brackets', '((4)-(1+3))', '0'),
    ('modular_arithmetic_brackets', '(-2)', '3'),
    ('solve_equation', '(x-1)=3', '4'),
    ('solve_equation', '-x=1', '4'),
    ('duplicate_string', '101', '101101'),
    ('missing_duplicate_string', '01100?10', '1'),
    ('missing_duplicate_string', '1011?1.', '0'),
    ('missing_duplicate_string', '1', '1'),
    ('odds_first', '00110101', '01000111'),
    ('odds_first', '110', '101'),
    ("odds_first(order='released')", '00110101', '01110100'),
    ("odds_first(order='released')", '110', '110'),
    ('binary_addition', '001+01101', '01011.'),
    ('binary_addition', '11+1', '001.'),
    ('binary_addition', '01', '01.'),
    ('binary_addition', '0', '0.'),
    ('binary_multiplication', '001*01101', '0001101.'),
    ('binary_multiplication', '11*11', '1001.'),
    ('binary_multiplication', '01', '0.'),
    ('binary_multiplication', '0', '.'),
    ('compute_sqrt', '100101', '110'),
    ('compute_sqrt', '11011', '101'),
    ('bucket_sort', '10204112', '00111224'),
]
# Those whose input is one draw per symbol.
DRAWN = {'even_pairs', 'parity_check', 'cycle_navigation', 'reverse_string', 'duplicate_string', 'odds_first'}
DRAWN |= {"odds_first(order='released')", 'bucket_sort', 'bucket_sort(symbols=3)'}


def written(shown, table):
    """What a person reads, as numbers."""
    return [list(table).index(name) for name in (shown.split(' ') if isinstance(table, list) else shown)]


@functools.cache
def sampler(text, batch, max_length):
    """One compiled program per task, for every length."""
    task = tasks.make(text)
    return jax.jit(lambda key, length: task.batch(key, batch, length, max_length))


@functools.cache
def read(text, length, seed=0, batch=BATCH, max_length=MAX_LENGTH):
    """The words and answers of a batch, as lists; `modular_arithmetic` has odd words only."""
    found = jax.device_get(sampler(text, batch, max_length)(jax.random.key(seed), length))
    start = int((found.valid & ~found.loss_mask)[0].sum())
    end = int(found.valid[0].sum())
    return found.tokens[:, :start].tolist(), found.targets[:, start:end].tolist()


def many(text, length, seeds=16):
    """Words and answers of 1,024 examples, [N, *]."""
    words, answers = zip(*(read(text, length, seed) for seed in range(seeds)), strict=True)
    return np.concatenate(words), np.concatenate(answers)


def assert_uniform(values, choices):
    """All of `choices` equally often, within five standard errors, and nothing else."""
    values, choices = np.asarray(values), list(choices)
    assert np.isin(values, choices).all()
    chance = 1 / len(choices)
    shares = np.array([(values == choice).mean(0) for choice in choices])
    assert np.abs(shares - chance).max() < 5 * np.sqrt(chance * (1 - chance) / len(values))


@pytest.fixture(params=ORACLES)
def text(request):
    return request.param


@pytest.mark.parametrize(('text', 'word', 'answer'), EXAMPLES)
def test_oracles_agree_with_the_worked_examples(text, word, answer):
    inputs, classes = symbols(text)
    found = ORACLES[text](written(word, inputs))
    if '.' in classes:
        assert not any(found[found.index(2) + 1 :])
        found = found[: found.index(2) + 1]
    assert found == [classes.index(name) for name in answer.replace(' ', '')]


@pytest.mark.parametrize('length', LENGTHS)
def test_answers(text, length):
    for word, answer in zip(*read(text, length), strict=True):
        assert answer == ORACLES[text](word), word


@pytest.mark.slow
@pytest.mark.parametrize('length', SLOW_LENGTHS)
def test_answers_of_long_words(text, length):
    words, answers = read(text, length, 0, SLOW_BATCH, SLOW_LENGTHS[-1])
    assert len(words) == SLOW_BATCH
    for word, answer in zip(words, answers, strict=True):
        assert answer == ORACLES[text](word), word


@pytest.mark.parametrize(('text', 'word', 'answer'), [example for example in EXAMPLES if example[0] in DRAWN])
def test_worked_examples(text, word, answer, monkeypatch):
    """The task's own answer to a given word: its random symbols are replaced by those of the example."""
    inputs, classes = symbols(text)
    word, answer = written(word, inputs), written(answer, classes)
    drawn = jnp.array(word + [0] * (MAX_LENGTH - len(word)))
    monkeypatch.setattr(jax.random, 'randint', lambda *args, **kwargs: drawn)
    batch = tasks.make(text).example(jax.random.key(0), len(word), MAX_LENGTH)
    assert batch.tokens[: len(word)].tolist() == word
    assert batch.targets[len(word) : len(word) + len(answer)].tolist() == answer


@pytest.mark.parametrize('length', [1, 7])
def test_a_person_reads_the_notation_of_the_worked_examples(text, length):
    task, (inputs, classes) = tasks.make(text), symbols(text)
    batch = jax.device_get(sampler(text, BATCH, MAX_LENGTH)(jax.random.key(0), length))
    gaps = [' ' if isinstance(names, list) else '' for names in (inputs, classes)]
    for row, word, answer in zip(range(5), *read(text, length), strict=False):
        ends = answer.index(2) + 1 if '.' in classes else len(answer)
        shown = [inputs[symbol] for symbol in word], [classes[label] for label in answer[:ends]]
        found = task.readable(jax.tree.map(lambda leaf, row=row: leaf[row], batch))
        assert found == (gaps[0].join(shown[0]), gaps[1].join(shown[1]))


def test_many_symbols_are_read_apart():
    """More than ten symbols have names of two digits."""
    task = tasks.make('bucket_sort', symbols=12)
    read, answer = task.readable(task.example(jax.random.key(0), 9, 9))
    assert sorted(map(int, read.split())) == list(map(int, answer.split()))


# --- what is drawn how often -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('length', [2, 3, 7])
@pytest.mark.parametrize('text', sorted(DRAWN))
def test_symbols_are_balanced(text, length):
    """At each place of its own."""
    assert_uniform(many(text, length)[0], range(tasks.make(text).inputs))


@pytest.mark.parametrize(
    ('text', 'length'),
    [
        *itertools.product(sorted(DRAWN - {'cycle_navigation', 'bucket_sort', 'bucket_sort(symbols=3)'}), [2, 3, 7]),
        *itertools.product(['missing_duplicate_string'], [2, 3, 7]),
        *itertools.product(['solve_equation'], [3, 4, 7, 20]),
        *itertools.product(['modular_arithmetic', 'modular_arithmetic_brackets'], [1, 2]),
        ('cycle_navigation', 20),
    ],
)
def test_labels_are_balanced(text, length):
    """Where the definition makes them uniform."""
    task = tasks.make(text)
    assert task.chance == 1 / task.num_classes
    assert_uniform(many(text, length)[1], range(task.num_classes))


def test_neighbours_and_pairs_are_independent():
    words = many('reverse_string', 20)[0]
    products = np.corrcoef(words.T) - np.eye(20)
    assert np.abs(products).max() < 5 / np.sqrt(len(words))


@pytest.mark.parametrize('length', [2, 3, 7, 20])
def test_missing_duplicate_words(length):
    """A doubled word with one hole; an odd length ends in 3; every place may be the hole."""
    half, holes = length // 2, set()
    for seed in range(3):
        for word in read('missing_duplicate_string', length, seed)[0]:
            assert word[2 * half :] == [3] * (length % 2)
            assert word[: 2 * half].count(2) == 1
            pairs = zip(word[:half], word[half : 2 * half], strict=True)
            assert all(a == b or 2 in (a, b) for a, b in pairs)
            assert {*word[: 2 * half]} <= {0, 1, 2}
            holes.add(word.index(2))
    assert holes == set(range(2 * half))
    assert read('missing_duplicate_string', 1)[0] == [[1]] * BATCH


@pytest.mark.parametrize(
    ('text', 'lengths'),
    [('modular_arithmetic', (1, 1, 3, 3, 7, 19)), ("modular_arithmetic(even='add')", (1, 3, 3, 5, 7, 21))],
)
def test_modular_arithmetic_has_odd_words(text, lengths):
    task = tasks.make(text)
    assert tuple(len(read(text, length)[0][0]) for length in LENGTHS) == lengths
    assert tuple(task.input_length(length) for length in LENGTHS) == lengths


def test_modular_arithmetic_symbols_are_balanced():
    words = many('modular_arithmetic', 7)[0]
    assert_uniform(words[:, 0::2], range(5))
    assert_uniform(words[:, 1::2], [5, 6, 7])


def test_stacks_and_actions_are_balanced():
    words = many('stack_manipulation', 7)[0]
    sizes = (words < 2).sum(1)
    assert_uniform(sizes, range(1, 7))
    assert_uniform(words[:, 0], [0, 1])
    assert_uniform(words[:, 6], [2, 3, 4])
    assert_uniform(many('stack_manipulation', 1)[0], [0, 1])


@pytest.mark.parametrize(
    ('text', 'length', 'operators'), [('modular_arithmetic_brackets', 12, '+-*'), ('solve_equation', 14, '+-')]
)
def test_expressions_are_balanced(text, length, operators):
    """The splits of 12 characters, the operators there, and the digits."""
    words = [''.join(symbols(text)[0][symbol] for symbol in word) for word in many(text, length)[0]]
    lefts, found, rights = zip(*(split(word.split('=')[0]) for word in words), strict=True)
    assert_uniform([len(left) for left in lefts], range(1, 9))
    assert_uniform(found, operators)
    # One level down, in parts of six characters.
    inner = [split(right) for right in rights if len(right) == 6]
    assert_uniform([len(a) for a, _, _ in inner], [1, 2])
    assert_uniform([symbol for _, symbol, _ in inner], operators)
    assert_uniform([left[0] for left in lefts if left in set('01234')], '01234')


def test_any_digit_may_be_hidden():
    """The next one from a uniform place on: of the places 0 .. 4 of (d+d)=v, 4, 0 and 1 lead to the digit at 1."""
    words = many('solve_equation', 7)[0]
    first, second = words[:, 1] == 9, words[:, 3] == 9
    assert (first != second).all()
    assert abs(first.mean() - 3 / 5) < 5 * np.sqrt(3 / 5 * 2 / 5 / len(words))


@pytest.mark.parametrize('text', ['binary_addition', 'binary_multiplication'])
def test_operands_are_balanced(text):
    words = many(text, 5)[0]
    places = (words == 2).argmax(1)
    assert_uniform(places, [1, 2, 3])
    assert_uniform([number(word[:2]) for word in words[places == 2]], [1, 2, 3])
    assert_uniform([number(word[3:]) for word in words[places == 2]], [1, 2, 3])
    assert_uniform([number(word[2:]) for word in words[places == 1]], range(1, 8))
    assert_uniform([number(word) for word in many(text, 2)[0]], [0, 1, 2])
    assert not many(text, 1)[0].any()


def test_roots_are_taken_of_uniform_numbers():
    assert_uniform([number(word[::-1]) for word in many('compute_sqrt', 4)[0]], range(1, 16))


def test_bits_of_large_numbers_are_independent():
    """On both sides of the 30 bits that are drawn as one number."""
    keys = jax.random.split(jax.random.key(0), 2000)
    bits = np.asarray(jax.jit(jax.vmap(lambda key: _binary.positive(key, 64, 70)))(keys))
    assert not bits[:, 64:].any()
    assert_uniform(bits[:, :64], [0, 1])
    assert np.abs(np.corrcoef(bits[:, :64].T) - np.eye(64)).max() < 5 / np.sqrt(len(keys))
