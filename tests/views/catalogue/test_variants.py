"""What is said of normalizers and mixings of heads, in the terminal and on the page."""

import pytest

from mha import mixing, normalizers
from mha.spec import UserError
from mha.views.catalogue import variants


def test_tables_have_all():
    for package in (normalizers, mixing):
        lines = variants.table(package, width=100).split('\n')
        assert {line.split()[0] for line in lines[2:] if line and not line.startswith('cores:')} == {*package.names()}
        assert all(len(line) <= 100 for line in lines)
    assert variants.table(mixing).index('cores: all') < variants.table(mixing).index('cores: dense\n')


def test_descriptions():
    text = variants.describe(normalizers, "sink('query', init=2.0)")
    for part in (
        'A_ij = e^(z_ij)',
        "'head' or 'query' or 'fixed'",
        "'query'\n",
        '2.0\n',
        'cores       dense, blockwise',
    ):
        assert part in text
    assert 'cores       all' in variants.describe(mixing, 'differential')


@pytest.mark.parametrize(
    ('package', 'text', 'message'),
    [
        (normalizers, 'sinks', "unknown normalizer 'sinks' - did you mean 'sink'"),
        (normalizers, 'entmax(alpha=0)', 'alpha must be above 1'),
        (normalizers, 'sink|softmax', 'a layer has one, not 2'),
        (mixing, 'none', "unknown mixing of heads 'none'"),
        (mixing, 'multi_token(keys=2)', 'keys must be odd'),
    ],
)
def test_mistakes(package, text, message):
    with pytest.raises(UserError, match=message):
        variants.describe(package, text)


def test_the_page():
    """A row and a section each, papers as links, and links that are links."""
    page = variants.page()
    for name in (*normalizers.names(), *mixing.names()):
        second = '-1' if name == 'stickbreaking' else ''  # also the name of a scheme above
        assert f'| [{name}](#{name}{second}) |' in page
        assert f'\n### {name}\n' in page
    assert '[arXiv:2010.04245](https://arxiv.org/abs/2010.04245)' in page
    assert 'The scheme [heads](#heads) gives' in page
