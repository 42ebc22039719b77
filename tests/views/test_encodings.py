"""Pictures of encodings have the panels of what a scheme has, and marks of the trained length."""

import numpy as np
import pytest

from mha.probes import Encoding
from mha.views import encodings

P, H = 6, 2
BIAS = -np.outer([1.0, 2.0], np.arange(P))
NOTHING = dict.fromkeys(('embedding', 'similarity', 'bias', 'initial_bias', 'logits', 'wavelengths'))


def encoding(**parts):
    facts = dict(stack='encoder', layers=(0, 1), scheme='a|b', trained=3, coordinates=np.arange(1.0 * P))
    return Encoding(**facts, **NOTHING | parts)


@pytest.mark.parametrize(
    ('parts', 'labels'),
    [
        ({}, []),
        (dict(bias=BIAS, initial_bias=BIAS, logits=BIAS + 1), ['bias']),
        (dict(bias=BIAS, initial_bias=0 * BIAS, logits=2 * BIAS), ['bias', 'logit of equal contents']),
        (dict(embedding=np.eye(P), similarity=np.eye(P)), ['dimension', 'cosine similarity to position']),
        (dict(logits=BIAS, wavelengths=np.array([6.0, 60.0])), ['logit of equal contents', 'positions per turn']),
    ],
)
def test_panels(parts, labels):
    drawn = encodings.svg([encoding(**parts), encoding()])
    every = 'bias', 'logit of equal contents', 'dimension', 'cosine similarity to position', 'positions per turn'
    assert [label for label in every if f'>{label}<' in drawn] == labels
    assert 'encoder, layers 0-1' in drawn


def test_lines():
    """Trained biases are solid, initial ones dotted where they differ; equal heads share a line."""
    learned, initial, equal = (
        encodings.figure([encoding(bias=bias, initial_bias=first)]).axes[0].lines[:-1]
        for bias, first in ((BIAS, 0 * BIAS), (BIAS, BIAS), (BIAS[:1].repeat(2, 0), BIAS[:1].repeat(2, 0)))
    )
    assert [line.get_linestyle() for line in learned] == ['-', '-', ':']
    assert [line.get_linestyle() for line in initial] == ['-', '-']
    assert len(equal) == 1
    np.testing.assert_array_equal(initial[1].get_ydata(), BIAS[1])
    mark = encodings.figure([encoding(bias=BIAS, initial_bias=BIAS)]).axes[0].lines[-1]
    assert list(mark.get_xdata()) == [3, 3]


def test_files_and_pictures_of_two_runs(tmp_path):
    found = {'a': [encoding(wavelengths=np.array([6.0, 6000.0]))], 'b': [encoding(bias=BIAS, initial_bias=BIAS)]}
    paths, pictures = encodings.write(tmp_path, found)
    assert [path.name for path in paths] == ['positions.svg', 'positions_against.svg']
    assert [title for title, _ in pictures] == ['a: a|b, encoder, layers 0-1', 'b: a|b, encoder, layers 0-1']
    assert '>1,000<' in paths[0].read_text()
    for _, panels in pictures:
        assert len(panels) == 1
        assert 'var(--ink)' in panels[0]
        assert '#24292f' not in panels[0]
    paths, pictures = encodings.write(tmp_path, {'b': found['b']})
    assert pictures[0][0].startswith('a|b')
    assert [path.name for path in tmp_path.iterdir()] == ['positions.svg']
