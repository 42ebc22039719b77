"""Nothing imports TensorFlow.

`tfds.testing.DatasetBuilderTestCase` cannot be used: it needs TensorFlow. What it checks of a builder is tested here on
prepared data: the features, number and content of the records, and that a builder made from the directory alone reads
them.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mha import datasets

ROOT = Path(__file__).parents[2]
CODE = """if True:
    import sys
    from mha import datasets, tasks
    from mha.datasets import subwords
    corpora = datasets.documents(), datasets.labelled(), datasets.labelled('a.csv'), datasets.pairs('a.tsv')
    for corpus in corpora:
        for split in datasets.SPLITS:
            corpus.read(split)
    try:
        datasets.labelled('ag_news_subset', '.')
    except ValueError as error:
        assert 'tfds build' in str(error)
    task = tasks.make("classification('a.csv', tokens='bpe(260)')")
    assert not {'tensorflow', 'keras', 'django', 'trac'} & {*sys.modules}
    print(sum(corpus.facts['data_train_examples'] for corpus in corpora))
"""


def test_no_tensorflow_nor_a_package_of_catalogues(write, tmp_path):
    write({'a.csv': 'text,label\n' + ''.join(f'text {i},{i % 2}\n' for i in range(40)), 'a.tsv': 'one\teins\n' * 2})
    environ = os.environ | {'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-c', CODE], env=environ, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10_000


KINDS = {
    'documents': ('d/*.txt', {f'd/{i:02}.txt': f'text {i}' for i in range(60)}, ['path', 'text']),
    'labelled': ('a.csv', {'a.csv': 'text,label\n' + ''.join(f'text {i},x\n' for i in range(60))}, ['label', 'text']),
    'pairs': ('a.tsv', {'a.tsv': ''.join(f'text {i}\tText {i}\n' for i in range(60))}, ['source', 'target']),
}  # fmt: skip


@pytest.mark.parametrize('kind', KINDS)
def test_builder(write, kind):
    data, contents, fields = KINDS[kind]
    write(contents)
    corpus = getattr(datasets, kind)(data)
    builder = tfds.builder_from_directory(corpus.directory)
    assert (builder.name, str(builder.version)) == ('text_corpus', '1.2.0')
    assert sorted(builder.info.features) == fields
    assert builder.info.file_format.value == 'array_record'
    assert builder.info.metadata['data_train_examples'] == builder.info.splits['train'].num_examples
    for split in datasets.SPLITS:
        records = builder.as_data_source(split)
        assert len(records) == builder.info.splits[split].num_examples > 0
        assert all(Path(path).is_file() for path in builder.info.splits[split].filepaths)
        columns = corpus.read(split)
        assert [record[fields[-1]] for record in records] == [*columns[fields[-1]]]
        assert sorted(columns) == fields
        third = records[len(records) // 3]
        assert all(isinstance(third[field], bytes) for field in fields)
    sizes = [builder.info.splits[split].num_examples for split in datasets.SPLITS]
    assert sum(sizes) == 60
    assert np.all(np.array(sizes) > 0)
    sliced = builder.as_data_source('train[:50%]')
    assert len(sliced) == round(sizes[0] / 2)
