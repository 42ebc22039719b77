import pytest


@pytest.fixture
def write(tmp_path, monkeypatch):
    """`write(name, files)` is a directory of that name with the `files`, content by path; caches are of the test."""
    monkeypatch.setenv('MHA_CACHE', str(tmp_path / 'cache'))

    def call(name, files):
        for path, content in files.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return tmp_path / name

    return call
