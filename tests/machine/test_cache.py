"""The cache of compiled programs."""

import jax
import pytest

from mha.machine import cache
from mha.spec import UserError


def test_a_cache_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setattr(jax.config, 'update', lambda name, value: None)
    monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR')
    for path, reason in {'file': 'Not a directory', 'file/below': 'Not a directory'}.items():
        monkeypatch.setenv('MHA_CACHE', str(tmp_path / path))
        with pytest.raises(UserError, match=f'cannot write to {tmp_path / path}: {reason} - set MHA_CACHE'):
            cache.keep_programs()
    monkeypatch.setenv('MHA_CACHE', str(tmp_path / 'new' / 'cache'))
    cache.keep_programs()
    assert (tmp_path / 'new' / 'cache' / 'programs').is_dir()
