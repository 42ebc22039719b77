"""Configs of models in several sizes: every size passes the checks, and has the stated number of parameters."""

import re

import pytest

from configs import bert, gpt
from mha.run import checks
from mha.run.build import build

SIZES = [
    pytest.param(config, size, id=f'{config.__name__}-{size}', marks=[pytest.mark.slow] * (size in ('tiny', 'small')))
    for config in (gpt, bert)
    for size in config.SIZES
]


@pytest.mark.parametrize(('config', 'size'), SIZES)
def test_a_size_has_its_parameters(config, size, tmp_path, monkeypatch):
    """Nothing is computed: a forward pass is traced, shapes are counted."""
    monkeypatch.setenv('MHA_CACHE', str(tmp_path))
    (tmp_path / 'a.txt').write_text('to be or not to be ' * 400)  # the default text takes long to prepare
    settings = config.get_config(size)
    name, _, arguments = settings.task.partition('(')
    settings.task = f'{name}({str(tmp_path / "a.txt")!r}, {arguments or ")"}'
    run = build(settings.to_dict())
    row = re.search(
        rf'^ *{size} +(\d+, \d+, \d+) +([\d.]+) million +([\d,]+) batches of (\d+) x (\d+)', config.__doc__, re.M
    )
    shape, millions, *trained = row.groups()
    assert shape == f'{settings.model.layers}, {settings.model.dim}, {settings.model.heads}'
    assert checks.count(run.state_shapes.params) / 1e6 == pytest.approx(float(millions), abs=0.05)
    steps, *batch = (int(number.replace(',', '')) for number in trained)
    assert [steps, *map(str, batch)] == [settings.train.steps, str(settings.train.batch_size), settings.train.lengths]


def test_an_unknown_size_names_the_choices():
    with pytest.raises(ValueError, match="the size is 'tiny', 'small', '125m', not 'large'"):
        gpt.get_config('large')
