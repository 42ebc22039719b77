"""The fifteen tasks of Delétang et al. (2023) in plain Python: what each asks, examples, and their notation."""

import functools
import itertools
import math
import operator
import re

import jax
import numpy as np

from mha import tasks

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
