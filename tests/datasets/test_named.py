import json
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mha import datasets
from mha.spec import UserError

LABELLED = {'text': tfds.features.Text(), 'label': tfds.features.ClassLabel(names=['zero', 'one'])}


def prepare(data_dir, name, splits, features, config='', version='1.2.3', supervised_keys=None):
    """Prepares a data set of this name, as `tfds build` does where TensorFlow is installed."""

    def info(self):
        features_ = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features_, supervised_keys=supervised_keys)

    def generate(self, dl_manager):
        return {split: enumerate(records) for split, records in splits.items()}

    members = {'VERSION': tfds.core.Version(version), 'name': name, '_info': info, '_split_generators': generate}
    members['_generate_examples'] = lambda self: ()
    if config:
        members['BUILDER_CONFIGS'] = [tfds.core.BuilderConfig(name=config)]
    with tfds.core.registered.skip_registration():
        kind = type(name, (tfds.core.GeneratorBasedBuilder,), members)
    kind(data_dir=data_dir, file_format='array_record').download_and_prepare()


def example(i):
    return {'text': f'text {i}', 'label': i % 2}


REVIEWS = {'train': [example(i) for i in range(50)], 'test': [example(i) for i in range(48, 60)]}


def texts(corpus, split):
    return {text.decode() for text in corpus.read(split)['text']}


def test_labelled(tmp_path):
    prepare(tmp_path, 'small_reviews', REVIEWS, LABELLED)
    for name in ('small_reviews', 'small_reviews:1.2.3'):
        corpus = datasets.labelled(name, str(tmp_path), strict=True)
        train, test = (corpus.read(split) for split in datasets.SPLITS)
        assert corpus.labels == ('one', 'zero')
        for columns, numbers in (train, range(50)), (test, range(48, 60)):
            pairs = zip(columns['text'], columns['label'], strict=True)
            expected = {(f'text {i}', 'one' if i % 2 else 'zero') for i in numbers}
            assert {(text.decode(), corpus.labels[label]) for text, label in pairs} == expected
    assert corpus.facts['data_duplicates_across'] == 2
    assert corpus.facts['data_split'] == 'train and test of the data set'
    assert corpus.facts['data_provenance'] == 'TFDS small_reviews/1.2.3'


def test_slices_of_documents_are_corpora_of_their_own(tmp_path):
    texts = {split: [{'text': one['text']} for one in each] for split, each in REVIEWS.items()}
    prepare(tmp_path, 'small_texts', texts, {'text': tfds.features.Text()})
    sizes = {}
    for part in ('', '[:10%]', '[:50%]'):
        corpus = datasets.documents(f'small_texts{part}', str(tmp_path))
        sizes[corpus.sha256] = [len(corpus.read(split)['text']) for split in datasets.SPLITS]
    assert [*sizes.values()] == [[50, 12], [5, 1], [25, 6]]


def test_slices(tmp_path):
    prepare(tmp_path, 'small_reviews', REVIEWS, LABELLED)
    corpus = datasets.labelled('small_reviews[:50%]', str(tmp_path))
    assert [len(texts(corpus, split)) for split in datasets.SPLITS] == [25, 6]
    rest = datasets.labelled('small_reviews[50%:]', str(tmp_path))
    assert texts(corpus, 'train') | texts(rest, 'train') == {f'text {i}' for i in range(50)}
    assert corpus != rest


@pytest.mark.parametrize('part', ['200%:', ':200%', ':1000', '50%:10%', '%%:', ':', '5', '5%', '', ':10:2'])
def test_slices_that_there_are_not(tmp_path, part):
    prepare(tmp_path, 'small_reviews', REVIEWS, LABELLED)
    message = f'the split train of 50 examples has no slice [{part}] - write it like [:10%] or [100:200]'
    with pytest.raises(UserError, match=re.escape(message) + '$'):
        datasets.labelled(f'small_reviews[{part}]', str(tmp_path))
    with pytest.raises(UserError, match=r'has no training example$'):
        datasets.labelled('small_reviews[:0%]', str(tmp_path))


def test_damage_is_named(tmp_path):
    prepare(tmp_path, 'small_reviews', REVIEWS, LABELLED)
    for name in ('small_reviews-train.array_record-00000-of-00001', 'features.json', 'dataset_info.json'):
        file = tmp_path / 'small_reviews/1.2.3' / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(UserError, match=r'^cannot read small_reviews: it is damaged \(.+\) - where TensorFlow is'):
            datasets.labelled('small_reviews', str(tmp_path))


def test_a_home_directory_and_validation(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    prepare(tmp_path / 'data', 'small_reviews', {'train': REVIEWS['train'], 'validation': REVIEWS['test']}, LABELLED)
    assert len(texts(datasets.labelled('small_reviews', '~/data'), 'test')) == 12


def test_documents_of_a_config(tmp_path):
    records = [{'text': f'wiki {i}\0\n', 'title': 'any'} for i in range(10)]
    features = {'text': tfds.features.Text(), 'title': tfds.features.Text()}
    prepare(tmp_path, 'wiki40b', {'train': records, 'test': records[:2]}, features, config='en')
    corpus = datasets.documents('wiki40b/en:1.2.3', str(tmp_path))
    assert {*corpus.read('train')['text']} == {f'wiki {i}\0\n'.encode() for i in range(10)}
    assert len({*corpus.read('train')['path']}) == 10


def test_pairs_of_a_translation(tmp_path):
    records = [{'de': f'Satz {i}', 'en': f'sentence {i}'} for i in range(10)]
    splits = {'train': records, 'test': records[:2]}
    features = tfds.features.Translation(languages=('de', 'en'))
    prepare(tmp_path, 'wmt_small', splits, features, config='de-en', supervised_keys=('en', 'de'))
    columns = datasets.pairs('wmt_small/de-en', str(tmp_path)).read('train')
    pairs = {*zip(columns['source'], columns['target'], strict=True)}
    assert pairs == {(f'sentence {i}'.encode(), f'Satz {i}'.encode()) for i in range(10)}


def test_malformed_records(tmp_path):
    splits = {'train': [*REVIEWS['train'], {'text': ' ', 'label': 0}], 'test': REVIEWS['test']}
    prepare(tmp_path, 'small_reviews', splits, LABELLED)
    corpus = datasets.labelled('small_reviews', str(tmp_path))
    assert corpus.facts['data_malformed'] == 1
    assert re.fullmatch(r'small_reviews, train:\d+: an empty text', corpus.facts['data_malformed_rows'][0])


def test_mistakes(tmp_path):
    run = 'where TensorFlow is installed, run: tfds build ag_news_subset --file_format=array_record'

    def message(*arguments, make=datasets.labelled, **options):
        with pytest.raises(UserError) as error:
            make(*arguments, **options)
        assert '\n' not in str(error.value)
        return str(error.value)

    nowhere = f"'ag_news_subse' is neither a file, relative to {tmp_path}, nor a prepared data set of TFDS"
    assert message('ag_news_subse') == f"{nowhere} - did you mean 'ag_news_subset'?"
    unlisted = f'nor a prepared data set of TFDS - {run.replace("ag_news_subset", "wiki40b/en")}'
    assert message('wiki40b/en').endswith(unlisted)
    assert message('ag_news_subset', str(tmp_path)) == f'ag_news_subset is not prepared - {run} --data_dir={tmp_path}'
    assert message('ag_news_subset:9.9.9', str(tmp_path)).startswith('ag_news_subset:9.9.9 is not prepared - ')
    for name in ('ag_news_subset:1', '1', 'ümlaut'):
        assert message(name).startswith(f'no file matches {name!r}, relative to {tmp_path}, and data sets are named')
    assert message('ag_news_subset', 'gs://data').startswith("data_dir='gs://data' is no path of a file system")
    prepare(tmp_path, 'ag_news_subset', REVIEWS, LABELLED)
    info = tmp_path / 'ag_news_subset/1.2.3/dataset_info.json'
    info.write_text(json.dumps(json.loads(info.read_text()) | {'fileFormat': 'tfrecord'}))
    end = f'is prepared as tfrecord, not array_record - {run} --data_dir={tmp_path} --overwrite'
    assert message('ag_news_subset', str(tmp_path)) == f'ag_news_subset {end}'

    prepare(tmp_path, 'no_test', {'train': REVIEWS['train']}, LABELLED)
    assert message('no_test', str(tmp_path)) == 'no_test must have the splits train, and test or validation, not train'
    assert message('no_test', str(tmp_path), make=datasets.pairs).startswith('no_test must have')
    prepare(tmp_path, 'small_reviews', REVIEWS, LABELLED)
    assert message('small_reviews', str(tmp_path), text='body') == "small_reviews has no feature 'body' but label, text"
    assert message('small_reviews', str(tmp_path), make=datasets.pairs) == (
        "small_reviews has no feature 'source' but label, text"
    )


def test_numbers_as_labels(tmp_path):
    features = {'text': tfds.features.Text(), 'stars': tfds.features.Scalar(np.int64)}
    records = [{'text': f'text {i}', 'stars': i} for i in range(3)]
    prepare(tmp_path, 'starred', {'train': records, 'test': records}, features)
    assert datasets.labelled('starred', str(tmp_path), label='stars').labels == ('0', '1', '2')
