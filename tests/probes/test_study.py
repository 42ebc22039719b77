"""A study of heads has the numbers of the probes that it is made of, and its command names what it leaves out."""

import csv
import json
import math
import shutil
from pathlib import Path

import pytest

import mha
from mha import probes
from mha.probes.study import MEASURES, _concentration, study
from tests.pretrained import checkpoints

pytestmark = pytest.mark.slow

STORED = Path(__file__).parents[1] / 'runs' / 'alibi'


def test_rows_of_a_run():
    run = mha.load(STORED)
    found = study(run, lengths='4,6', examples=4)
    assert [list(row) for row in found] == [['length', 'heads', *MEASURES]] * 2
    curve = probes.pruning_curve(run, order=probes.importance.ORDERS['importance'](run, 0), lengths='4,6', examples=4)
    statistics = probes.head_statistics(run, lengths='4,6', examples=4)
    for row, whole, length in zip(found, curve, (4, 6), strict=False):
        assert (row['length'], row['heads']) == (length, 2)
        assert (row['accuracy'], row['loss']) == (whole['accuracy'], whole['loss'])
        (close,) = (each.redundancy()['pairs'] for each in probes.head_similarity(run, length=length, examples=4))
        assert row['close_pairs'] == row['close_share'] == len(close)  # of one pair
        assert row['removable_share'] == row['removable'] / 2
        assert row['with_role'] == sum(bool(probes.roles(head)) for head in statistics if head['length'] == length)
        assert math.isnan(row['concentration'])


def test_concentration():
    """Heads are summed over lengths; the top quarter of five heads are two."""
    values = 3.0, 1.0, 2.0, 0.5, 1.5
    rows = [
        {'stack': 'encoder', 'layer': 0, 'head': head, 'length': length, 'importance': value}
        for length in (2, 4)
        for head, value in enumerate(values)
    ]
    assert _concentration(rows) == pytest.approx(5 / 8)
    assert math.isnan(_concentration(rows[:3]))
    assert math.isnan(_concentration([{**row, 'importance': 0.0} for row in rows]))


@pytest.fixture
def sweep(tmp_path):
    """Two finished runs, one without a checkpoint, and one that is not finished."""
    for name, changes in {'a': {}, 'b': {'seed': 1}, 'broken': {}, 'begun': {}}.items():
        shutil.copytree(STORED, tmp_path / 'runs' / name)
        path = tmp_path / 'runs' / name / 'config.json'
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    shutil.rmtree(tmp_path / 'runs' / 'broken' / 'checkpoints')
    (tmp_path / 'runs' / 'begun' / 'summary.json').unlink()
    return tmp_path / 'runs'


def test_command(sweep, module):
    done = module('mha.probes', 'runs', '--lengths=3', '--examples=2', code=2)
    assert 'note: 1 of 4 runs are not finished' in done.stdout
    assert 'runs/broken holds no checkpoint' in done.stderr
    assert done.stderr.splitlines()[-1] == 'mha.probes: 1 of 3 runs could not be studied, see above'
    with (sweep / 'heads' / 'heads.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [(row['run'], row['seed'], row['length'], row['heads']) for row in rows] == [
        ('../a', '0', '3', '2'),
        ('../b', '1', '3', '2'),
    ]
    assert '| bucket_sort |' in (sweep / 'heads' / 'heads.md').read_text()
    assert (sweep / 'heads' / 'heads.svg').read_text().startswith('<?xml')
    other = module('mha.probes', 'runs/a', '--output=runs/heads', code=2)
    assert 'holds a study of other runs, such as ' in other.stderr


def test_a_pretrained_model(tmp_path, module):
    checkpoints.write(tmp_path / 'llama', 'llama')
    checkpoints.write_tokenizer(tmp_path / 'llama')
    module('mha.probes', 'llama', '--lengths=8', '--examples=2')
    with (tmp_path / 'llama' / 'heads' / 'heads.csv').open() as file:
        assert [(row['run'], row['length'], row['heads']) for row in csv.DictReader(file)] == [('..', '8', '8')]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'name the runs to study'),
        (['nowhere'], "no directory 'nowhere'"),
        (['runs/a', 'runs/b'], 'say where the study goes with --output'),
        (['runs/begun'], 'no run is finished'),
        (['runs/a', '--lengths=4,x'], '--lengths'),
        (['runs/a', '--output=runs/notes'], 'is there already and is no study'),
    ],
    ids=str,
)
def test_mistakes(sweep, module, arguments, message):
    (sweep / 'notes').mkdir()
    (sweep / 'notes' / 'heads.md').write_text('mine')
    done = module('mha.probes', *arguments, code=2)
    assert message in done.stderr
    assert done.stderr.count('\n') == 1, done.stderr
    assert (sweep / 'notes' / 'heads.md').read_text() == 'mine'
