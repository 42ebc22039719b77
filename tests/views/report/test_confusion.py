"""Confusion matrices from the files of evaluations."""

from xml.etree import ElementTree

import numpy as np

from mha.run import workdir
from mha.views.report import confusion

ROWS = """seed,length,true,predicted,count
0,8,da,da,9
0,16,da,da,3
0,16,da,no,1
0,16,<no>,<no>,4
1,16,<no>,da,2
"""


def test_the_longest_length_is_drawn(tmp_path, monkeypatch):
    drawn, figure = [], confusion.figure

    def spy(matrices, classes):
        drawn.append(({title: counts.tolist() for title, counts in matrices.items()}, classes))
        return figure(matrices, classes)

    monkeypatch.setattr(confusion, 'figure', spy)
    (tmp_path / 'a.csv').write_text(ROWS)
    confusion.draw(tmp_path / 'a.csv', tmp_path / 'a.svg')
    counts = [[4, 2, 0], [0, 3, 1], [0, 0, 0]]
    assert drawn == [({'length 16: 70.0% of 10 examples are right': counts}, ['<no>', 'da', 'no'])]
    ElementTree.parse(tmp_path / 'a.svg')
    assert 'mathdefault' not in (tmp_path / 'a.svg').read_text()
    axes = figure({'': np.array(counts)}, ['<no>', 'da', 'no']).axes[0]
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares.filled(0), [[4 / 6, 2 / 6, 0], [0, 0.75, 0.25], [0, 0, 0]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ['<no>', 'da', 'no']
    rates = [line + (',dropout_rate' if line.startswith('seed') else f',{line[0]}') for line in ROWS.splitlines()]
    (tmp_path / 'a.csv').write_text('\n'.join([*rates, '']))
    confusion.draw(tmp_path / 'a.csv', tmp_path / 'a.svg')
    titles = [
        'dropout_rate=0, length 16: 87.5% of 8 examples are right',
        'dropout_rate=1, length 16: 0.0% of 2 examples are right',
    ]
    assert [*drawn[1][0]] == titles


def test_any_labels_are_drawn(tmp_path):
    """As XML, which has no control characters; the names of many classes have no room."""
    names = ['a\0b', '\x1b[31m', '$\\x$', 'two\nlines', 'cr\rhere', '=1', 'long ' * 1000, '<&">', 'é😀']
    rows = [dict(seed=0, length=8, true=name, predicted=name, count=1) for name in names]
    workdir.write_rows(tmp_path / 'a.csv', rows)
    confusion.draw(tmp_path / 'a.csv', tmp_path / 'a.svg')
    ElementTree.parse(tmp_path / 'a.svg')
    many = [f'name {number}' for number in range(500)]
    axes = confusion.figure({'': np.eye(500, dtype=int)}, many).axes[0]
    assert (axes.figure.get_size_inches() <= confusion.LARGEST).all()
    assert not axes.get_yticklabels()
