"""What is known of a config before it runs; what a person can get wrong in one is in tests/test_scripts.py."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh

from configs import common
from mha import spec
from mha.machine import memory, parallel
from mha.run import build as building
from mha.run import checks
from mha.run.build import build, check_cells
from mha.spec import UserError

SYMMETRIC = "alibi(variant='symmetric')"


def make(lengths='1-6', curriculum='uniform', task='bucket_sort', **model):
    config = common.get_config()
    config.task = task
    config.model.update({'layers': 1, 'dim': 16, 'heads': 2} | model)
    config.train.lengths, config.eval.lengths = '1-4', lengths
    config.train.curriculum = curriculum
    return build(config.to_dict())


@pytest.mark.parametrize(
    ('model', 'told'),
    [
        (dict(position='none'), True),
        (dict(position=SYMMETRIC), True),
        (dict(position=SYMMETRIC, pattern='window(2)'), True),
        (dict(position='rope'), False),
        (dict(position='none', causal=True), False),
        (dict(position='none', pattern='window(2, 0)'), False),
        (dict(position='none', pattern='global(1)|window(1)'), False),
    ],
    ids=str,
)
def test_a_model_blind_to_direction_is_told(model, told):
    assert any('mirror image' in note for note in make(**model).notes()) == told


def test_a_batch_whose_logits_do_not_fit_is_refused(monkeypatch):
    """The limit is that of one device: batches, heads and members trained together are spread over several. Those of a
    CPU are one."""
    run = make('1-8', position='ssmax', core='dense')

    def check(limit, data=1, model=1, microbatches=1, members=1, together=True, backend='gpu'):
        monkeypatch.setattr(jax, 'default_backend', lambda: backend)
        monkeypatch.setattr(memory, 'total', lambda: limit)
        layout = parallel.Layout(AbstractMesh((data, model), (parallel.DATA, parallel.MODEL)), members, together)
        train = {**run.config['train'], 'microbatches': microbatches}
        run_ = dataclasses.replace(run, layout=layout, members=run.members * members)
        checks.training_fits(dataclasses.replace(run_, config={**run.config, 'train': train}))

    of_batch = 4 * 128 * 2 * run.task.num_tokens(4) ** 2
    check(of_batch)
    with pytest.raises(UserError, match=r'attention logits of a layer take .*train\.microbatches'):
        check(of_batch - 1)
    for less in (dict(data=2), dict(model=2), dict(microbatches=2), dict(members=2, together=False, data=2)):
        check(of_batch // 2, **less)
        with pytest.raises(UserError):
            check(of_batch // 2 - 1, **less)
    with pytest.raises(UserError, match=r"train\.members='in turn'"):
        check(of_batch, members=2)
    check(2 * of_batch, members=2)
    check(of_batch, data=2, backend='cpu')
    with pytest.raises(UserError):
        check(of_batch - 1, data=2, backend='cpu')


def state_bytes(run):
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(run.state_shapes))


@pytest.mark.parametrize(
    ('model', 'words'),
    [
        (dict(mlp_dim=512), 'blocks.0.down.kernel of shape (512, 16) - choose a smaller model.mlp_dim, model.mlp'),
        (dict(position='learned(max_position=4096)'), 'positions.0.table of shape (4096, 16) - choose smaller numbers'),
        (
            dict(task='bucket_sort(symbols=4096)'),
            'embedding.embedding of shape (4097, 16) - choose a smaller model.dim',
        ),
        (dict(head_dim=512), 'of shape (16, 2, 512) - choose a smaller model.dim, fewer model.heads'),
    ],
    ids=str,
)
def test_a_state_that_does_not_fit_is_refused(model, words, monkeypatch):
    """The limit applies to the sum of parameters and both moments of Adam; the message names the largest parameter."""
    run = make(**model)
    state = state_bytes(run) * run.layout.mesh.size
    assert state > 3 * 4 * checks.count(run.state_shapes.params)
    monkeypatch.setattr(memory, 'total', lambda: state)
    checks.state_fits(run)
    monkeypatch.setattr(memory, 'total', lambda: state - 1)
    with pytest.raises(UserError) as error:
        build(run.config)
    assert words in str(error.value)
    assert str(error.value).startswith('parameters and optimizer state take ')
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ('fits', 'data', 'members', 'backend'),
    [
        (True, 1, 1, 'gpu'),
        (False, 1, 2, 'gpu'),
        (True, 2, 2, 'gpu'),
        (True, 2, 1, 'gpu'),
        (False, 2, 1, 'cpu'),
    ],
)
def test_a_state_is_spread_over_devices_and_grows_with_members(fits, data, members, backend, monkeypatch):
    """Devices of a CPU share its memory, so that their shares of the state add up."""
    run = make()
    monkeypatch.setattr(memory, 'total', lambda: state_bytes(run))
    monkeypatch.setattr(jax, 'default_backend', lambda: backend)
    layout = parallel.Layout(AbstractMesh((data, 1), (parallel.DATA, parallel.MODEL)), members, True)
    run_ = dataclasses.replace(run, layout=layout, members=[{'seed': seed} for seed in range(members)])
    if fits:
        checks.state_fits(run_)
        return
    with pytest.raises(UserError, match='fewer members' if members > 1 else 'parameters and optimizer state'):
        checks.state_fits(run_)


def test_a_trained_model_is_evaluated_where_it_could_not_be_trained(monkeypatch):
    run = make('1-8', position='ssmax', core='dense')
    monkeypatch.setattr(memory, 'total', lambda: 10**4)
    with pytest.raises(UserError):
        build(run.config)
    build(run.config, eval_lengths='8')


def test_heads_that_devices_cannot_share_are_refused():
    run = make(heads=4)
    for devices in (1, 2, 4):
        mesh = AbstractMesh((1, devices), (parallel.DATA, parallel.MODEL))
        checks.mesh(dataclasses.replace(run, layout=parallel.Layout(mesh, 1)))
    for devices in (3, 8):
        mesh = AbstractMesh((1, devices), (parallel.DATA, parallel.MODEL))
        with pytest.raises(UserError, match=f'mesh.model={devices} does not divide model.heads=4'):
            checks.mesh(dataclasses.replace(run, layout=parallel.Layout(mesh, 1)))


def test_a_curriculum_that_ends_early_is_told():
    run = make(curriculum='regular_increase(every=5000)')
    assert run.train_lengths == (1, 2)
    assert any('no length above 2 in 10000 steps' in note for note in run.notes())
    run = make(curriculum='regular_increase(every=2500)')
    assert run.train_lengths == (1, 2, 3, 4)
    assert not any('no length above' in note for note in run.notes())


def test_a_seed_that_a_population_replaces_is_told():
    for seed, seeds, told in ((3, (0, 1), True), (3, (3, 4), False), (0, (1, 2), False), (3, None, False)):
        config = common.get_config()
        config.seed, config.population.seed = seed, seeds
        assert any('seed=3 is not used' in note for note in build(config.to_dict()).notes()) == told


def test_pairs_are_read_as_pairs():
    """Schemes serve one of the two sequences."""
    with pytest.raises(UserError, match=r"task 'bytes_retrieval' gives pairs, .* use model.readout='token'"):
        make(task='bytes_retrieval', readout='pooled')
    with pytest.raises(UserError, match="task 'parity_check' gives single sequences"):
        make(task='parity_check', readout='pair')
    with pytest.raises(UserError, match=re.escape("task 'lm(scored=9)' is evaluated at lengths from 9, not 1")):
        make('1-7', task='lm(scored=9)', causal=True)
    make(task='bytes_retrieval', position='learned(max_position=6)')
    with pytest.raises(UserError, match='6 rows'):
        make('1-7', task='bytes_retrieval', position='learned(max_position=6)')


@pytest.mark.parametrize(
    ('key', 'text'),
    [
        ('task', 'bucketsort'),
        ('task', 'bucket_sort(symbols=1)'),
        ('model.position', 'ropee'),
        ('model.position', 'rope, ropee'),
        ('model.position', 'rope, none, none'),
        ('model.position', 'rope(theta=0)'),
        ('model.position', 'none, learned'),
        ('model.position', 'learned(max_position=3)'),
        ('model.pattern', 'windw(4)'),
        ('model.pattern', 'window(-1)'),
        ('model.core', 'dens'),
        ('model.core', "linear(features='elu')"),
        ('model.mlp', 'swigl'),
        ('model.mlp', 'relu(width=0)'),
        ('train.curriculum', 'unifrom'),
        ('train.curriculum', 'fixed(500)'),
        ('train.final_position', 'ropee'),
        ('train.final_position', 'xpos(theta=0)'),
        ('train.final_position', 'learned(max_position=3)'),
        ('optimizer.name', 'adm'),
        ('optimizer.name', 'adam(eps=-1)'),
        ('optimizer.name', 'adam|lion'),
        ('optimizer.schedule', 'cosin'),
        ('optimizer.schedule', 'cosine(final=2)'),
    ],
)
def test_a_mistake_in_a_spec_names_its_key(key, text):
    config = common.get_config()
    config.model.update({'layers': 2, 'dim': 16, 'heads': 2})
    config.update_from_flattened_dict({key: text})
    with pytest.raises(UserError) as error:
        build(config.to_dict())
    assert str(error.value).startswith(f'{key}: ')
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ('key', 'value', 'words'),
    [
        ('train.steps', 0, 'must be at least 1, not 0'),
        ('train.steps', 10**20, 'must be at most 2,147,483,647, not 100000000000000000000'),
        ('train.batch_size', True, 'must be a whole number, not True'),
        ('train.log_every_steps', 0, 'must be at least 1'),
        ('train.average', 1.0, 'must be at least 0 and below 1'),
        ('train.head_penalty', float('inf'), 'must be 0, or from 1e-30 to 1e+30, not inf'),
        ('train.members', 'alone', "must be 'auto' or 'together' or 'in turn', not 'alone'"),
        ('train.lengths', '1-10000000', 'at most 1,000,000 lengths'),
        ('model.dim', 10**8, 'must be at most 65,536, not 100000000'),
        ('model.layers', 10**6, 'must be at most 1,024'),
        ('model.head_dim', -1, 'must be at least 1'),
        ('model.norm_eps', float('nan'), 'must be above 0 and at most 1, not nan'),
        ('model.softcap', 1e39, 'must be 0, or from'),
        ('model.init', 'gpt2(', "cannot read 'gpt2('"),
        ('mesh.data', -1, 'must be at least 0'),
        ('optimizer.learning_rate', 1e39, 'must be from 1e-30 to 1e+30, not 1e+39'),
        ('optimizer.clip_norm', 1e-320, 'must be 0, or from'),
        ('eval.examples', 10**9, 'must be at most 16,777,216'),
        ('eval.every_steps', -1, 'must be at least 0'),
        ('eval.lengths', '10000000', 'length 10,000,000 has 20,000,000 tokens, more than 8,388,608'),
        ('eval.seed', 2**32, 'must be from 0 to 4,294,967,295, not 4294967296'),
        ('population.seed', (0, -1), 'must be from 0 to 4,294,967,295, not -1'),
        ('population.learning_rate', (1e-3, 1e39), 'must be from 1e-30 to 1e+30, not 1e+39'),
        ('population.dropout_rate', (0.1, 1.0), 'must be at least 0 and below 1, not 1.0'),
    ],
)
def test_keys_of_a_config_have_types_and_limits(key, value, words):
    config = {**common.get_config().to_dict()}
    section, name = key.split('.')
    with pytest.raises(UserError) as error:
        build({**config, section: {**config[section], name: value}})
    assert str(error.value).startswith(key)
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_every_key_of_a_config_has_a_type():
    keys = {key for key in spec.flatten(common.get_config().to_dict()) if not key.startswith('population.')}
    assert keys <= checks.KEYS.keys()


def test_a_population_has_a_limit():
    """Checked before the members are made: these would be 10^12."""
    config = common.get_config().to_dict()
    config['population'] |= {'seed': range(10**6), 'weight_decay': range(10**6)}
    with pytest.raises(UserError, match='at most 16,384 members, not 1,000,000,000,000'):
        build(config)


def test_cells_that_differ_in_their_seed_are_built_once(monkeypatch):
    """A seed that cannot be is found all the same."""
    config, built = common.get_config().to_dict(), []
    config['population']['learning_rate'] = range(1, 3)  # as a config file may have it
    monkeypatch.setattr(building, 'build', lambda cell: built.append((cell['seed'], cell['task'])))
    check_cells({'a': config, 'b': {**config, 'seed': 1}, 'c': {**config, 'seed': 1, 'task': 'duplicate_string'}})
    assert built == [(0, 'bucket_sort'), (1, 'duplicate_string')]
    with pytest.raises(UserError, match='cell d: seed must be from 0 to 4,294,967,295, not -1'):
        check_cells({'a': config, 'd': {**config, 'seed': -1}})


@pytest.mark.slow
def test_the_operation_that_makes_the_first_nan():
    """Finite parameters that overflow in the forward pass; ordinary ones make none."""
    run = make()
    state = run.init()
    assert run.first_nan(state) == 'no operation makes a NaN of finite numbers'
    large = dataclasses.replace(state, params=jax.tree.map(lambda leaf: leaf + jnp.float32(1e38), state.params))
    assert re.fullmatch(r'invalid value \(nan\) encountered in \w+, .*/mha/.*\.py:\d+ in \w+', run.first_nan(large))
