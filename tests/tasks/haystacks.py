"""The tasks of RULER in plain Python: they read a word, check its form, and answer."""

import re
from collections import Counter

import numpy as np
from scipy.special import zeta


def needle(task, word, length):
    shown = ''.join(task.alphabet[symbol] for symbol in word)
    named = task.keys > 1
    width, count = 1 + named + task.digits, task.keys * task.values
    assert len(shown) == max(length, width * count + 1 + named * task.queries)
    text, asked = shown.split('?')
    hidden = re.findall(f'#([A-Z]{{{int(named)}}})([0-9]{{{task.digits}}})', text)
    rest = re.sub(f'#[A-Z]{{{int(named)}}}[0-9]{{{task.digits}}}', '', text)
    assert {*rest} <= {*'abcdefghijklmnopqrstuvwxyz'[: task.filler]}
    counts = Counter(name for name, _ in hidden)
    assert {*counts.values()} == {task.values}
    assert len(counts) == task.keys
    asked = [*asked] if named else ['']
    assert len(asked) == len({*asked}) == task.queries
    return [int(digit) for name in asked for owner, value in hidden if owner == name for digit in value]


def variable_tracking(task, word, length):
    shown = ''.join(task.alphabet[symbol] for symbol in word)
    statements = task.chains * (task.hops + 1)
    assert len(shown) == max(length, 3 * statements + 2)
    text, query = shown.split('?')
    values, chains, found = {}, Counter(), re.findall('([A-Z])=([0-9A-Z])', text)
    for name, source in found:
        assert name not in values
        values[name] = values.get(source, source)  # what it copies comes before it
        chains[values[name]] += 1
    assert len(found) == statements
    assert re.fullmatch('[a-z]*', re.sub('[A-Z]=[0-9A-Z]', '', text))
    assert [*chains.values()] == [task.hops + 1] * task.chains
    return [task.answers.index(name) for name, value in values.items() if value == query]


def common_words(task, word, length):
    counts = Counter(word)  # in the order of their first occurrence
    others = max(length - task.common * task.often, 0)
    expected = [task.often] * task.common + [task.rare] * (others // task.rare) + [others % task.rare]
    assert sorted(counts.values(), reverse=True) == [count for count in expected if count]
    return [name for name, count in counts.items() if count == task.often]


def freq_words(task, word, length):
    length = max(length, task.smallest)
    assert len(word) == length
    share = np.arange(2, 2 + task.num_classes, dtype=float) ** -task.alpha / zeta(task.alpha)
    expected = np.floor(length * share).astype(int)
    counts = Counter(word)
    del counts[0]
    assert sorted(counts.values(), reverse=True) == expected[expected > 0].tolist()
    ranked = counts.most_common()
    assert ranked[0][1] > ranked[1][1] > ranked[2][1] > (ranked[3][1] if len(ranked) > 3 else 0)
    return [name - 1 for name, _ in ranked[:3]]


ORACLES = dict(needle=needle, variable_tracking=variable_tracking, common_words=common_words, freq_words=freq_words)
