"""Logits of pretrained models against forward passes in float64, written from the papers."""

import jax.numpy as jnp
import numpy as np
import pytest

from mha import pretrained
from tests.pretrained.checkpoints import SETTINGS, SYMBOLS, logits, write

TOKENS = np.random.default_rng(1).integers(0, SYMBOLS, (2, 12))


@pytest.mark.parametrize('family', SETTINGS)
def test_logits(family, tmp_path):
    settings, tensors = write(tmp_path, family)
    run = pretrained.load(tmp_path)
    np.testing.assert_allclose(run.model(jnp.asarray(TOKENS)), logits(settings, tensors, TOKENS), atol=1e-4)


def test_every_family_is_tested():
    assert {*SETTINGS} == {*pretrained.FAMILIES}
