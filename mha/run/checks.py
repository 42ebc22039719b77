"""Checks of an experiment, one function each. They run before any work, and before a file is written."""

import math
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import jax
from flax import nnx

from mha import arguments, positions, spec
from mha.arguments import Decay, Seed, Size, Steps, at_least, at_most
from mha.machine import memory, parallel
from mha.model.encoder import Encoder
from mha.model.seq2seq import Model
from mha.run import population
from mha.run.experiment import Experiment, at_once
from mha.tasks import Task
from mha.training import optim
from mha.training import step as training

_LAYERS = Annotated[int, at_least(0), at_most(1024)]
_EXAMPLES = Annotated[int, at_least(1), at_most(2**24)]
_BUCKETS = Annotated[int, at_least(1), at_most(1024)]
_DEVICES = Annotated[int, at_least(0), at_most(2**20)]
_LATER = Annotated[int, at_least(0), at_most(spec.LARGEST - 1)]
KEYS: dict[str, Any] = {
    'seed': Seed,
    'task': str,
    **{f'model.{name}': hint for name, hint in typing.get_type_hints(Encoder.__init__, include_extras=True).items()},
    'model.decoder_layers': _LAYERS,
    'model.decoder_position': str,
    'model.cross_position': str,
    'model.pruned': str,
    'train.steps': Steps,
    'train.batch_size': _EXAMPLES,
    'train.microbatches': _EXAMPLES,
    'train.lengths': str,
    'train.length_per': Literal['batch', 'example'],
    'train.curriculum': str,
    'train.buckets': _BUCKETS,
    'train.final_position': str | None,
    'train.final_steps': _LATER,
    'train.head_penalty': Size,
    'train.average': Decay,
    'train.non_finite': Literal['stop', 'skip'],
    'train.members': Literal['auto', 'together', 'in turn'],
    'train.log_every_steps': Steps,
    'train.checkpoint_every_steps': Steps,
    'mesh.data': _DEVICES,
    'mesh.model': _DEVICES,
    **{f'optimizer.{name}': hint for name, hint in typing.get_type_hints(optim.make, include_extras=True).items()},
    'eval.lengths': str,
    'eval.examples': _EXAMPLES,
    'eval.batch_size': _EXAMPLES,
    'eval.buckets': _BUCKETS,
    'eval.every_steps': _LATER,
    'eval.seed': Seed,
}
"""Types and limits of the keys of a config. Those of `model` and `optimizer` are the arguments of what they make."""
SMALLER = {
    'positions': 'smaller numbers in model.position',
    'embedding': 'a smaller model.dim, fewer symbols of the task',
    'head': 'a smaller model.dim, fewer classes of the task',
    **dict.fromkeys(('up', 'down', 'gate'), 'a smaller model.mlp_dim, model.mlp or model.dim, fewer model.layers'),
    '': 'a smaller model.dim, fewer model.heads or model.layers',
}
"""Advice for each part of a parameter's name that makes the parameter smaller; the last one is for all others."""


# ----------------------------------------------------------------------------------------------------------- the config
def settings(config: Mapping[str, Any], members: Iterable[population.Member]) -> None:
    """Refuses settings of another type than `KEYS` says, or out of range, in the config or in a member of the
    population."""
    for key, value in spec.flatten(config).items():
        if key in KEYS:
            arguments.check(key, value, KEYS[key])
    for name, value in {(name, value) for member in members for name, value in member.items()}:
        arguments.check(f'population.{name}', value, KEYS[population.SETTINGS[name]])
    train = config['train']
    if train['batch_size'] % train['microbatches']:
        raise spec.UserError(
            f'train.microbatches={train["microbatches"]} does not divide train.batch_size={train["batch_size"]}'
        )
    if train['final_steps'] > train['steps']:
        raise spec.UserError(
            f'train.final_steps must be from 0 to train.steps={train["steps"]}, not {train["final_steps"]}'
        )
    if train['final_steps'] and not train['final_position']:
        raise spec.UserError(f'train.final_steps={train["final_steps"]} needs train.final_position=...')


# ------------------------------------------------------------------------------------------------------- the experiment
def optimizer(run: Experiment) -> None:
    """Refuses wrong specs of the optimizer and its schedule."""
    run.optimizer()


def tokens(run: Experiment) -> None:
    """Refuses lengths with more tokens than positions are exact for."""
    for key, length in ('train.lengths', run.train_lengths[-1]), ('eval.lengths', run.eval_lengths[-1]):
        if (count := int(run.task.num_tokens(length))) > arguments.REACH:
            raise spec.UserError(f'{key}: length {length:,} has {count:,} tokens, more than {arguments.REACH:,}')


def layout(run: Experiment) -> None:
    """Refuses a batch size that the mesh does not divide."""
    run.layout.check(at_once(run.config['train']))


def mesh(run: Experiment) -> None:
    """Refuses a number of heads that the mesh does not divide."""
    split = run.layout.mesh.shape[parallel.MODEL]
    if run.config['model']['heads'] % split:
        raise spec.UserError(f'mesh.model={split} does not divide model.heads={run.config["model"]["heads"]}')


def decoder(run: Experiment) -> None:
    """Refuses a decoder for a task without source and target, or such a task without a decoder."""
    model, task = run.config['model'], run.config['task']
    if model['decoder_layers'] and model['causal']:
        raise spec.UserError('model.causal is for models without a decoder - set model.causal=False, or no decoder')
    if model['decoder_layers'] and not run.task.has_source:
        raise spec.UserError(
            f'task {task!r} has no source and target for a decoder - choose translation, or model.decoder_layers=0'
        )
    if run.task.has_source and not model['decoder_layers']:
        raise spec.UserError(
            f'task {task!r} has a source and a target - set model.decoder_layers, or model.causal=True for both in one '
            'sequence'
        )
    for name, unset in ('decoder_position', ''), ('cross_position', 'none'):
        if model[name] != unset and not model['decoder_layers']:
            raise spec.UserError(f'model.{name}={model[name]!r} is for a decoder - set model.decoder_layers')


def readout(run: Experiment) -> None:
    """Refuses a read-out that does not fit the answers of the task."""
    model, task = run.config['model'], run.config['task']
    if run.task.halves and model['readout'] == 'pooled':
        raise spec.UserError(
            f"task {task!r} gives pairs, which have a read-out of their own - use model.readout='token'"
        )
    if model['readout'] == 'pair' and not run.task.halves:
        raise spec.UserError(f"task {task!r} gives single sequences - use model.readout='token' or 'pooled'")
    if model['readout'] == 'pooled' and run.task.output_length(2) != 1:
        raise spec.UserError(
            f"model.readout='pooled' gives one answer per sequence, but task {task!r} asks for more - use "
            "model.readout='token'"
        )
    if run.task.one_class and model['readout'] != 'pooled':
        raise spec.UserError(f"task {task!r} asks for one class of a whole text - use model.readout='pooled'")
    if model['tied'] and run.task.classes != run.task.vocabulary[: run.task.num_classes]:
        raise spec.UserError(f'model.tied needs classes that are symbols; those of task {task!r} are not')


def positions_reach(run: Experiment) -> None:
    """Refuses a position scheme that cannot represent the longest sequence, or whose hooks return wrong shapes."""
    first, final = run.first_shapes, run.final_shapes
    trained = run.longest if final is first else run.train_lengths[-1]
    sizes = run.config['model']
    head_dim = sizes['head_dim'] or sizes['dim'] // sizes['heads']
    dims = positions.Dims(sizes['dim'], sizes['heads'], head_dim, run.max_len, sizes['causal'])
    final_key = 'model.position' if final is first else 'train.final_position'
    for key, model, text, length in (
        ('model.position', first, run.position, trained),
        (final_key, final, run.final_position, run.longest),
    ):
        for scheme in model.schemes:
            with spec.setting(key):
                positions.check_shapes(scheme, dims)
                positions.checked_extent(scheme, model.context(run.task.num_tokens(length)), text)


def evaluated_lengths(run: Experiment) -> None:
    """Refuses an evaluation at lengths that the task does not allow."""
    if run.eval_lengths[0] < run.held_out.shortest:
        raise spec.UserError(
            f'task {run.config["task"]!r} is evaluated at lengths from {run.held_out.shortest}, not '
            f'{run.eval_lengths[0]}'
        )


def parameters_stay(run: Experiment) -> None:
    """Refuses a final position scheme whose parameters differ from those of the first."""
    first, final = (sorted(shapes(model)) for model in (run.first_shapes, run.final_shapes))
    if first != final:
        raise spec.UserError(
            f'position {run.final_position!r} cannot take over from {run.position!r}: their parameters differ'
        )


def forward_pass(run: Experiment) -> None:
    """Refuses combinations that a core, a mask or a scheme does not support, by tracing a forward pass of an evaluation
    without computing it."""
    _trace(run.final_shapes, run.held_out, run.eval_lengths[-1], train=False)


def training_pass(run: Experiment) -> None:
    """Refuses combinations that a forward pass in training does not support."""
    _trace(run.first_shapes, run.task, run.train_lengths[-1], train=True)


def state_fits(run: Experiment) -> None:
    """Refuses training if parameters and optimizer state exceed the memory of a device."""
    on_cpu = jax.default_backend() == 'cpu'
    copies = max(run.layout.mesh.size // jax.process_count(), 1) if on_cpu else 1  # devices of a CPU share its memory

    def size(leaf: Any) -> int:
        return copies * math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize

    needed = sum(size(leaf) for leaf in jax.tree.leaves(run.state_shapes))
    if needed <= memory.total():
        return
    path, largest = max(jax.tree.leaves_with_path(run.state_shapes.params), key=lambda item: size(item[1]))
    name = jax.tree_util.keystr(path, simple=True, separator='.')
    choices = next(choices for part, choices in SMALLER.items() if part in name.split('.') or not part)
    more = ', fewer members' if len(run.members) > 1 else ''
    raise spec.UserError(
        f'parameters and optimizer state take {memory.shown(needed)} of a device, more than the '
        f'{memory.shown(memory.total())} it has; the largest is {name} of shape {largest.shape[1:]} - choose '
        f'{choices}{more}'
    )


def training_fits(run: Experiment) -> None:
    """Refuses a batch if the attention logits of one layer exceed the memory of the mesh's devices."""
    devices = 1 if jax.default_backend() == 'cpu' else run.layout.mesh.size  # the devices of a CPU share its memory
    needed = run.logits_size // devices
    if needed > memory.total():
        raise spec.UserError(
            f'the attention logits of a layer take {memory.shown(needed)} of a device, more than it has - choose '
            f"{less(run)}, or model.core='blockwise' if the position scheme allows it"
        )


def less(run: Experiment) -> str:
    """What a run with less memory may choose."""
    members = ", train.members='in turn'" if run.layout.together and len(run.members) > 1 else ''
    return f'a smaller train.batch_size, more train.microbatches, shorter train.lengths{members}'


EVALUATION = (
    optimizer,
    tokens,
    layout,
    mesh,
    decoder,
    readout,
    positions_reach,
    evaluated_lengths,
    parameters_stay,
    forward_pass,
)
"""Checks of every experiment, the most helpful messages first."""
TRAINING = (training_pass, state_fits, training_fits)
"""Further checks of an experiment that is yet to be trained."""


def _trace(model: Model, task: Task, length: int, train: bool) -> None:
    """Traces the model's forward pass without computing it."""
    with spec.setting('task'):
        _ = task.data  # which is read here, if it was not yet
    graphdef, params = nnx.split(model, nnx.Param)

    def forward(params, key):
        batch = task.batch(key, 1, 1, length)
        dropout = key if train else None
        return training.logits_of(graphdef, params, batch, train=train, position=key, dropout=dropout)

    jax.eval_shape(forward, nnx.to_pure_dict(params), jax.random.key(0))


def shapes(model: Model) -> list[tuple[str, tuple[int, ...]]]:
    """Path and shape of every parameter."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return [(jax.tree_util.keystr(path), leaf.shape) for path, leaf in jax.tree.leaves_with_path(params)]


def count(params: Any) -> int:
    """Number of parameters of one member; leaves of `params` are [P, ..], with an axis of members."""
    return sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(params))
