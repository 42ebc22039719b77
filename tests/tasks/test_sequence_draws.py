"""Draws of the tasks of Kazemnejad et al. and their frequencies."""

import collections
import itertools
import re

import jax
import numpy as np
import pytest

from tests.tasks.sequences import PCFG_BINARY, PCFG_UNARY, RANKED, make, occurrences, read, scan


def draws(text, length, seeds=8):
    return [pair for seed in range(seeds) for pair in read(text, length, seed)]


def uniform(found, choices):
    """Every choice is drawn, each within five standard errors of a uniform share."""
    counts, share = collections.Counter(found), 1 / len(choices)
    assert {*counts} == {*choices}
    error = np.sqrt(share * (1 - share) / counts.total())
    assert max(abs(count / counts.total() - share) for count in counts.values()) <= 5 * error


def test_tokens_are_uniform():
    for text in ('copying', "copying(kind='rdc')"):
        tokens = make(text).symbols
        names = [str(i) for i in range(tokens)]
        prompts = [prompt.split() for prompt, _ in draws(text, 4, 16)]
        if text == 'copying':
            uniform([word for words in prompts for word in words[:-1]], names)
        else:
            uniform([words[1] for words in prompts], names)
            uniform([(int(words[3]) - int(words[1])) % tokens for words in prompts], range(1, tokens))
    uniform([symbol for prompt, _ in draws('sorting(scratchpad=True)', 7) for symbol in prompt[:-1]], RANKED)


def test_places_of_duplicates_are_uniform():
    """Six pairs of trigrams of eight tokens do not overlap; hardly any other trigram occurs twice."""
    found = [occurrences(prompt.split()[:-1], 3) for prompt, _ in draws('copying(duplicate=3)', 8)]
    uniform([pairs[0] for pairs in found], [(i, j) for i in range(3) for j in range(i + 3, 6)])


def test_integers_are_uniform():
    numbers = [int(n) for prompt, _ in draws("sorting(kind='integers')", 7) for n in prompt[:-1].split(',')]
    assert 10 <= min(numbers) < 30
    assert 9980 < max(numbers) <= 9999
    assert abs(np.mean(numbers) - (10 + 9999) / 2) < 5 * 9990 / np.sqrt(12 * len(numbers))


def test_answers_are_balanced():
    uniform([answer[-2] for _, answer in draws("parity(scratchpad='remaining, input')", 7)], 'YN')
    uniform([answer[-3:-1] for _, answer in draws('lego(permuted=True, scratchpad=True)', 4)], ['+1', '-1'])
    uniform([answer[0] for _, answer in draws('summation', 20)], '0123456789')
    uniform([digit for prompt, _ in draws('summation', 3) for digit in prompt[::2]], '123456789')


def test_pairs_of_numbers_are_uniform():
    """Of all pairs of numbers of digits with that maximum; numbers do not begin with 0, but 0 itself does."""
    text = 'addition(scratchpad=True)'
    numbers = [prompt.rstrip('=').split('+') for prompt, _ in draws(text, 4)]
    uniform([(len(a), len(b)) for a, b in numbers], [(4, n) for n in (1, 2, 3, 4)] + [(n, 4) for n in (1, 2, 3)])
    uniform([n[0] for pair in numbers for n in pair if len(n) > 1], '123456789')
    uniform([n[-1] for pair in numbers for n in pair], '0123456789')
    uniform([n for prompt, _ in draws(text, 1) for n in prompt.rstrip('=').split('+')], '0123456789')


def test_terms_are_uniform():
    prompts = [prompt for prompt, _ in draws('polynomial(scratchpad=True)', 3)]
    uniform([prompt[2:].split(';')[0] for prompt in prompts], ['-2', '-1', '0', '1', '2'])
    terms = [term for prompt in prompts for term in re.findall(r'(-?\d)\*x\^(\d)', prompt)]
    uniform(terms, [(str(c), str(d)) for c in range(-3, 4) for d in range(4)])


DISTINCT = 'symbols=150, distinct=True, bos=True'


@pytest.mark.parametrize('length', [1, 3, 4])
def test_numbers_of_symbols_are_uniform(length):
    """Ties excluded where they would leave no majority; all strings with the same number are equally likely."""
    untied = [number for number in range(length + 1) if 2 * number != length]
    bits = [prompt[1:-1] for prompt, _ in draws('majority', length)]
    uniform([word.count('0') for word in bits], untied)
    uniform([word for word in bits if word.count('0') == 1], [word for word in words(length) if word.count('0') == 1])
    bits = [prompt[1:-1] for prompt, _ in draws("parity(ones='uniform', bos=True)", length)]
    uniform([word.count('1') for word in bits], range(length + 1))
    uniform([word for word in bits if word.count('1') == 1], [word for word in words(length) if word.count('1') == 1])
    bits = [prompt[1:-1] for prompt, _ in draws('majority_interleaved', 3 * length)]
    uniform([tuple(word[i::3].count('0') for i in range(3)) for word in bits], [*itertools.product(untied, repeat=3)])


def words(length, symbols='01'):
    return map(''.join, itertools.product(symbols, repeat=length))


def test_strings_with_a_most_frequent_letter_are_uniform():
    def wins(word):
        most, *more = sorted((word.count(symbol) for symbol in 'abc'), reverse=True)
        return most > more[0]

    found = [prompt[1:-1] for prompt, _ in draws('majority(symbols=3)', 4, 16)]
    uniform(found, [word for word in words(4, 'abc') if wins(word)])


def test_distinct_tokens_are_uniform():
    for name in ('copying', 'sorting'):
        prompts = [prompt.split()[1:-1] for prompt, _ in draws(f'{name}({DISTINCT})', 4, 16)]
        for place in (0, 3):
            uniform([prompt[place] for prompt in prompts], [str(i) for i in range(150)])
    assert len({tuple(sorted(map(int, prompt))) for prompt in prompts}) > len(prompts) - 3


def test_operands_share_the_prompt_uniformly():
    text = "addition(base=2, measure='prompt', bos=True)"
    numbers = [prompt[1:-1].split('+') for prompt, _ in draws(text, 9)]
    uniform([(len(a), len(b)) for a, b in numbers], [(n, 7 - n) for n in range(1, 7)])
    uniform([n for pair in numbers for n in pair if len(n) == 1], '01')
    uniform([n for pair in numbers for n in pair if len(n) == 3], ['100', '101', '110', '111'])


@pytest.mark.parametrize(('length', 'depths'), [(1, [1]), (2, [2]), (3, [3]), (7, [5, 6, 7])])
def test_queries_of_lego(length, depths):
    """The second half of the chain; with permuted clauses, in any order."""
    pairs = draws('lego(permuted=True, scratchpad=True)', length)
    uniform([answer.count('/') for _, answer in pairs], depths)
    places = [[clause[-1] == '1' for clause in prompt.split(';')].index(True) for prompt, _ in pairs]
    uniform(places, range(length))
    uniform([prompt.split(';')[-1][0] for prompt, _ in pairs], 'abcdefghijklmnopqrstuvwxyz')


def test_lego_in_order():
    for prompt, _ in read('lego', 4, 0, 4):
        *clauses, _ = prompt.split(';')
        assert [clause[-1] for clause in clauses] == ['1', *(clause[0] for clause in clauses[:-1])]


def test_scan_has_all_commands():
    """As published: 20,910 commands, of which 16,990 have up to 22 actions and 3,920 have 24 or more."""
    task = make('scan')
    table, starts, ends = jax.device_get(task.data)
    found = {}
    for row in table.tolist():
        words = [task.alphabet[symbol] for symbol in row if symbol >= 0]
        do = [word for word in words if word.isupper()]
        command = ' '.join(word for word in words if word.islower())
        found[command] = len(do)
        assert ' '.join([*do, '.']) == scan(f'{command} >')[0]
    assert len(found) == len(table) == 20_910
    sizes = np.array([*found.values()])
    assert ((sizes <= 22).sum(), (sizes >= 24).sum(), sizes.max()) == (16_990, 3_920, 48)
    for length in range(1, 49):
        longest = sizes[sizes <= length].max()
        assert {*sizes[starts[length] : ends[length]]} == {longest}
        assert ends[length] - starts[length] == (sizes == longest).sum()
    uniform([prompt for prompt, _ in draws('scan', 1)], [c + ' >' for c, size in found.items() if size == 1])


def test_functions_of_pcfg():
    """Every function and every depth occurs; values stay within bounds."""
    words = collections.Counter(word for prompt, _ in draws('pcfg', 7, 4) for word in prompt.split())
    assert all(words[name] > 20 for name in (*PCFG_UNARY, *PCFG_BINARY, ','))
    sizes = [len(answer.split()) - 1 for _, answer in draws('pcfg', 20, 4)]
    assert 40 < max(sizes) <= 64
    uniform([prompt.split()[0] for prompt, _ in draws('pcfg', 1) if ',' not in prompt], PCFG_UNARY)
