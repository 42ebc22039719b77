import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Caches and relative paths are of the test."""
    monkeypatch.setenv('MHA_CACHE', str(tmp_path / 'cache'))
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'cache'


@pytest.fixture
def write(tmp_path):
    """`write(files)` writes contents by path, text or bytes, below the working directory."""

    def call(files):
        for path, content in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())

    return call
