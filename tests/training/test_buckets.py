import itertools

import pytest

from mha.training import buckets


def padded(lengths, chosen):
    return sum(min(bucket for bucket in chosen if bucket >= length) for length in lengths)


@pytest.mark.parametrize('lengths', [(1, 2, 3, 10, 11, 12), (5,), (1, 4, 9, 16, 25, 36), tuple(range(1, 11))])
@pytest.mark.parametrize('count', [1, 2, 3, 8])
def test_best_of_all_choices(lengths, count):
    chosen = buckets.choose(lengths, lambda length: length, count)
    others = itertools.combinations(lengths[:-1], min(count, len(lengths)) - 1)
    assert len(chosen) <= count
    assert padded(lengths, chosen) == min(padded(lengths, (*other, lengths[-1])) for other in others)


def test_padding_of_the_published_lengths_stays_below_15_percent():
    lengths = range(1, 41)
    chosen = buckets.choose(lengths, lambda length: length, 8)
    assert chosen[-1] == 40
    assert padded(lengths, chosen) / sum(lengths) < 1.15


def test_cost_is_counted_in_tokens():
    # With 3 l tokens for long inputs, it pays to give them the second bucket.
    assert buckets.choose((1, 9, 10), lambda length: length if length < 10 else 100, 2) == (9, 10)
