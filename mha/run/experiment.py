"""An experiment put together from its config: everything a person can get wrong in one fails here, before any work."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from mha import positions, spec, tasks
from mha.machine import parallel
from mha.model.encoder import Encoder
from mha.run import population
from mha.tasks import Task
from mha.training import buckets, curricula, evaluation, optim
from mha.training import step as training

WEIGHTS, TRAINING = 0, 1
"""What a run's seed is folded with, so that no two purposes share keys."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts that `train.py` and `eval.py` run. `config` is a plain nested dict, as in a run's `config.json`."""

    config: Mapping[str, Any]
    task: Task
    members: list[population.Member]
    layout: parallel.Layout
    curriculum: curricula.Curriculum
    eval_lengths: tuple[int, ...]

    @classmethod
    def build(cls, config: Mapping[str, Any], eval_lengths: str | None = None) -> 'Experiment':
        """Reads and checks a config. `eval_lengths` replaces those of the config, for a run that is trained already: a
        device may be too small to train it. Raises `UserError`."""
        train, members = config['train'], population.members(config)
        check_numbers(config, members)
        on_cpu = jax.default_backend() == 'cpu'
        together = train['members'] == 'together' or (train['members'] == 'auto' and not on_cpu)
        experiment = cls(
            config=config,
            task=tasks.make(config['task'], causal=config['model']['causal'], **config['data']),
            members=members,
            layout=parallel.Layout(parallel.make_mesh(**config['mesh']), len(members), together),
            curriculum=curricula.make(
                train['curriculum'], spec.lengths(train['lengths'], 'train.lengths'), train['steps']
            ),
            eval_lengths=spec.lengths(eval_lengths or config['eval']['lengths'], 'eval.lengths'),
        )
        experiment.optimizer()
        for member in members:
            numbers = {name: member[name] for name in member if name not in ('seed', 'dropout_rate')}
            try:
                experiment.optimizer(**numbers)
            except spec.UserError as error:
                raise spec.UserError(f'population, {population.named(numbers)}: {error}') from error
        experiment.layout.check(at_once(train))
        experiment.check()
        if eval_lengths is None:
            experiment.check_training()
        return experiment

    def optimizer(self, **numbers: Any) -> optax.GradientTransformation:
        """The optimizer; `numbers` replace those of the config."""
        call = spec.Call('optimizer', (), {**self.config['optimizer'], **numbers})
        return spec.build(optim.make, call, 'config', self.config['train']['steps'])

    def check(self) -> None:
        """Traces model and task, without computing, at the longest length they will be asked for."""
        longest, split = max(self.train_lengths[-1], self.eval_lengths[-1]), self.layout.mesh.shape[parallel.MODEL]
        if self.config['model']['heads'] % split:
            raise spec.UserError(f'mesh.model={split} does not divide model.heads={self.config["model"]["heads"]}')
        first, final = self.first_shapes, self.final_shapes
        trained = longest if final is first else self.train_lengths[-1]
        if self.task.halves != (self.config['model']['readout'] == 'pair'):
            what, others = ('pairs', "'pair'") if self.task.halves else ('single sequences', "'token' or 'pooled'")
            raise spec.UserError(f'task {self.config["task"]!r} gives {what} - use model.readout={others}')
        sizes = self.config['model']
        head_dim = sizes['head_dim'] or sizes['dim'] // sizes['heads']
        dims = positions.Dims(sizes['dim'], sizes['heads'], head_dim, self.max_len, sizes['causal'])
        for model, text, length in ((first, self.position, trained), (final, self.final_position, longest)):
            for scheme in model.positions:
                positions.check_shapes(scheme, dims)
                positions.checked_extent(scheme, model.context(self.task.num_tokens(length)), text)
        self.check_logits(final, longest, 1, 1, 'shorter lengths')
        own = [sorted(shapes(nnx.to_pure_dict(nnx.state(model, nnx.Param)))) for model in (first, final)]
        if own[0] != own[1]:
            raise spec.UserError(
                f'position {self.final_position!r} cannot take over from {self.position!r}: their parameters differ'
            )
        self.trace(first, self.task, self.train_lengths[-1], train=True)
        self.trace(final, self.task.held_out(), longest, train=False)
        if self.config['model']['readout'] == 'pooled' and self.task.output_length(2) != 1:
            raise spec.UserError(
                f"model.readout='pooled' gives one answer per sequence, but task {self.config['task']!r} asks for more "
                "- use model.readout='token'"
            )

    def check_training(self) -> None:
        """Refuses what no device of the layout can train."""
        together = len(self.members) if self.layout.together else 1
        devices = 1 if jax.default_backend() == 'cpu' else self.layout.mesh.size  # those of a CPU share its memory
        choices = 'a smaller train.batch_size, more train.microbatches, shorter train.lengths'
        choices += ", train.members='in turn'" if together > 1 else ''
        examples = at_once(self.config['train']) * together
        self.check_logits(self.first_shapes, self.train_lengths[-1], examples, devices, choices)

    def check_logits(self, model: Encoder, length: int, examples: int, devices: int, choices: str) -> None:
        """Refuses examples of which one layer's logits alone exceed the memory of so many devices; `choices` help."""
        tokens, heads = model.context(self.task.num_tokens(length)), self.config['model']['heads']
        needed = 4 * examples * heads * tokens**2 // devices
        if model.quadratic(self.task.num_tokens(length)) and needed > device_memory():
            of = f'{examples} x {tokens}' if examples > 1 else tokens
            raise spec.UserError(
                f'the attention logits of {of} tokens and {heads} heads take {needed / 1e9:.0f} GB of a device, more '
                f"than it has - choose {choices}, or model.core='blockwise' if the position scheme allows it"
            )

    def trace(self, model: Encoder, task: Task, length: int, train: bool) -> None:
        """Runs the model's forward pass on shapes alone: what a core or a mask refuses is refused here."""
        graphdef, params = nnx.split(model, nnx.Param)

        def forward(params, key):
            batch = task.batch(key, 1, 1, length)
            dropout = key if train else None
            return training.logits_of(graphdef, params, batch, train=train, position=key, dropout=dropout)

        jax.eval_shape(forward, nnx.to_pure_dict(params), jax.random.key(0))

    @property
    def train_lengths(self) -> tuple[int, ...]:
        """The lengths that training meets."""
        return self.curriculum.lengths

    @property
    def max_len(self) -> int:
        """The longest sequence in tokens that the config asks for; it sizes a learned position table."""
        longest = spec.lengths(self.config['eval']['lengths'], 'eval.lengths')[-1]
        return max(self.task.num_tokens(length) for length in (self.train_lengths[-1], longest))

    @property
    def position(self) -> str:
        """The position scheme that training starts with."""
        return self.config['model']['position']

    @property
    def final_position(self) -> str:
        """The position scheme that training ends with, and that is evaluated."""
        return self.config['train']['final_position'] or self.position

    def notes(self) -> list[str]:
        """What a person may want to know about this config before it runs."""
        found, train = [], self.config['train']
        asked, met = spec.lengths(train['lengths'], 'train.lengths')[-1], self.train_lengths[-1]
        if met < asked:
            found.append(
                f'curriculum {train["curriculum"]!r} draws no length above {met} in {train["steps"]} steps, though '
                f'train.lengths goes up to {asked}: trained lengths are those drawn'
            )
        if not (any(scheme.directed for scheme in self.final_shapes.positions) or self._one_sided()):
            found.append(
                f'position {self.final_position!r} does not tell left from right: this encoder sees a sequence and its '
                'mirror image alike'
            )
        return found

    def _one_sided(self) -> bool:
        """Whether a mask tells left from right, among the first tokens if there are many."""
        tokens = min(self.task.num_tokens(self.train_lengths[-1]), 1024)
        maps = (np.asarray(block.mask.dense(tokens, tokens)) for block in self.final_shapes.blocks)
        return any((seen != seen[..., ::-1, ::-1]).any() for seen in maps)

    def model(self, position: str | None = None, key: jax.Array | None = None) -> Encoder:
        """The model with fresh weights, drawn from `key` or from the first seed; under another `position` scheme if
        given."""
        call = spec.Call('model', (), {**self.config['model'], 'position': position or self.position})
        sizes = dict(vocab_size=self.task.vocab_size, num_classes=self.task.num_classes, max_len=self.max_len)
        key = self.keys(WEIGHTS)[0] if key is None else key
        return spec.build(Encoder, call, 'config', **sizes, rngs=nnx.Rngs(key))

    def keys(self, purpose: int) -> jax.Array:
        """One key per member: of its weights, or of its data, dropout and positions."""
        return jnp.stack([jax.random.fold_in(jax.random.key(member['seed']), purpose) for member in self.members])

    @property
    def varied(self) -> dict[str, jax.Array]:
        """The numbers in which members differ, seeds aside: [P] each."""
        names = [name for name in self.members[0] if name != 'seed']
        return {name: jnp.array([member[name] for member in self.members], jnp.float32) for name in names}

    @functools.cached_property
    def first_shapes(self) -> Encoder:
        """The model that training starts with, shapes without values."""
        return nnx.eval_shape(self.model)

    @functools.cached_property
    def final_shapes(self) -> Encoder:
        """The model under the final position scheme, shapes without values; its parameters are those of the first."""
        return (
            self.first_shapes
            if self.final_position == self.position
            else nnx.eval_shape(lambda: self.model(self.final_position))
        )

    @functools.cached_property
    def state_shapes(self) -> training.State:
        """Shapes and places of the training state."""
        params = nnx.to_pure_dict(nnx.state(self.first_shapes, nnx.Param))
        members = len(self.members)
        stacked = jax.tree.map(lambda x: jax.ShapeDtypeStruct((members, *x.shape), x.dtype), params)
        state = jax.eval_shape(self._state, stacked)
        return jax.tree.map(lambda x, at: x.update(sharding=at), state, self.layout.shardings(state))

    def init(self) -> training.State:
        """The state before the first step."""
        # Not jitted: the same small programs serve every member and every model of such widths.
        models = [self.model(key=key) for key in self.keys(WEIGHTS)]
        weights = [nnx.to_pure_dict(nnx.state(model, nnx.Param)) for model in models]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights)
        return self.layout.place(self._state(stacked))

    def _state(self, params: Any) -> training.State:
        return training.init(params, self.optimizer(), self.config['train']['average'])

    def chunk(
        self, final: bool = False, meanwhile: Callable[[], None] = lambda: None
    ) -> Callable[[training.State, int], tuple[training.State, dict[str, jax.Array]]]:
        """The training program, compiled, under the first position scheme or the final one: `chunk(state, stop)`, see
        `training.make_chunk`. `meanwhile` is called when Python's part is done and the compiler's begins: it may start
        a thread."""
        train, layout = self.config['train'], self.layout
        chunk = training.make_chunk(
            nnx.split(self.final_shapes if final else self.first_shapes, nnx.Param)[0],
            self.optimizer,
            curriculum=self.curriculum,
            buckets=buckets.choose(self.train_lengths, self.task.num_tokens, train['buckets']),
            batch_size=train['batch_size'],
            length_per=train['length_per'],
            microbatches=train['microbatches'],
            average=train['average'],
            together=layout.together,
            summed=layout.summed,
            shardings=(layout.shardings(self.state_shapes), layout.replicated),
        )
        task, (keys, varied) = layout.replicate(self.task), layout.place((self.keys(TRAINING), self.varied))
        options = layout.compiler_options
        if self.config['model']['remat'] and jax.default_backend() == 'cpu':
            # The compiler merges what is recomputed with the first computation, unless it keeps the barriers.
            options['xla_disable_hlo_passes'] = 'cse_barrier_expander'
        lowered = chunk.lower(self.state_shapes, task, keys, np.int32(0), varied)
        meanwhile()
        program = lowered.compile(options)
        return lambda state, stop: program(state, task, keys, np.int32(stop), varied)

    @functools.cached_property
    def evaluator(self) -> evaluation.Evaluator:
        """Measures one member on held-out data: on all devices, wherever it was trained."""
        settings = self.config['eval']
        graphdef, params = nnx.split(self.final_shapes, nnx.Param)
        return evaluation.Evaluator(
            graphdef,
            nnx.to_pure_dict(params),
            self.task.held_out(),
            lengths=self.eval_lengths,
            examples=settings['examples'],
            batch_size=settings['batch_size'],
            programs=settings['buckets'],
            seed=settings['seed'],
            quadratic=self.final_shapes.quadratic,
            layers=self.config['model']['layers'],
            layout=parallel.Layout(parallel.make_mesh()),
        )

    def evaluate(
        self, params: Any, members: Iterable[int] | None = None
    ) -> tuple[list[evaluation.Row], list[evaluation.Row]]:
        """The rows of all evaluated lengths and of their answer positions, of every member or of those listed, under
        the final position scheme: see `evaluation.Evaluator`. A row begins with the member's seed and ends with what
        else it varies."""
        rows, positions = [], []
        for index in range(len(self.members)) if members is None else members:
            member = self.members[index]
            name = f'evaluate {population.named(member)}' if len(self.members) > 1 else 'evaluate'
            found = self.evaluator(jax.tree.map(lambda x, index=index: x[index], params), name)
            others = {name: value for name, value in member.items() if name != 'seed'}
            for into, new in zip((rows, positions), found, strict=True):
                into += [{'seed': member['seed'], **row, **others} for row in new]
        return rows, positions

    def survivors(self, params: Any) -> list[int]:
        """The members whose parameters are all finite."""
        finite = jax.tree.map(lambda x: np.isfinite(x).reshape(len(self.members), -1).all(1), params)
        return np.flatnonzero(np.all(jax.tree.leaves(finite), axis=0)).tolist()


def check_numbers(config: Mapping[str, Any], members: Iterable[population.Member]) -> None:
    """Raises `UserError` for a setting of training or evaluation that is out of its range."""
    train, evaluate = config['train'], config['eval']
    spec.check_counts(config)
    if train['batch_size'] % train['microbatches']:
        raise spec.UserError(
            f'train.microbatches={train["microbatches"]} does not divide train.batch_size={train["batch_size"]}'
        )
    if not 0 <= train['final_steps'] <= train['steps']:
        raise spec.UserError(
            f'train.final_steps must be from 0 to train.steps={train["steps"]}, not {train["final_steps"]}'
        )
    if train['final_steps'] and not train['final_position']:
        raise spec.UserError(f'train.final_steps={train["final_steps"]} needs train.final_position=...')
    rates = [('population.dropout_rate', member['dropout_rate']) for member in members if 'dropout_rate' in member]
    for name, share in [('train.average', train['average']), *rates]:
        if not 0 <= share < 1:
            raise spec.UserError(f'{name} must be at least 0 and below 1, not {share}')
    for name, seed in [*(('seed', member['seed']) for member in members), ('eval.seed', evaluate['seed'])]:
        if not 0 <= seed < 2**32:
            raise spec.UserError(f'{name} must be at least 0 and below 2^32, not {seed}')
    spec.choose(train['length_per'], ('batch', 'example'), 'train.length_per')
    spec.choose(train['members'], ('auto', 'together', 'in turn'), 'train.members')


def at_once(train: Mapping[str, Any]) -> int:
    """How many examples a step computes at once."""
    return train['batch_size'] // max(train['microbatches'], 1)


def device_memory() -> int:
    """Bytes that the device has: those of the machine, where it is a CPU."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    return statistics.get('bytes_limit') or os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def shapes(params: Any) -> list[tuple[str, tuple[int, ...]]]:
    """Path and shape of every parameter."""
    return [(jax.tree_util.keystr(path), leaf.shape) for path, leaf in jax.tree.leaves_with_path(params)]


def parameters(params: Any) -> int:
    """How many numbers one member learns; `params` [P, ..] are those of all."""
    return sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(params))
