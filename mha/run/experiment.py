"""Experiment: the model, optimizer, training program and evaluator that a config describes."""

import dataclasses
import functools
import re
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from mha import arguments, spec
from mha.machine import memory, parallel
from mha.model import heads
from mha.model.attention import in_tiles
from mha.model.encoder import Encoder
from mha.model.seq2seq import EncoderDecoder, Model
from mha.nn import prng
from mha.run import population
from mha.tasks import Task
from mha.training import buckets, curricula, evaluation, optim
from mha.training import step as training
from mha.training.step import Purpose


@dataclasses.dataclass(frozen=True)
class Program:
    """Compiled training program `program(state, stop)` (see `training.Chunk`)."""

    call: Callable[[training.State, int], tuple[training.State, dict[str, jax.Array]]]
    needed: int
    """Memory in bytes of a device that the program takes beside its arguments."""

    def __call__(self, state: training.State, stop: int) -> tuple[training.State, dict[str, jax.Array]]:
        return self.call(state, stop)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All parts of an experiment, as `train.py` and `eval.py` use them. Made by `mha.run.build.build`. `config` is a
    nested dict, as in the `config.json` of a run."""

    config: Mapping[str, Any]
    task: Task
    members: list[population.Member]
    layout: parallel.Layout
    curriculum: curricula.Curriculum
    eval_lengths: tuple[int, ...]

    def optimizer(self, **numbers: Any) -> optax.GradientTransformation:
        """Optimizer of the config; `numbers` replace settings of the same name."""
        call = spec.Call('optimizer', (), {**self.config['optimizer'], **numbers})
        return arguments.build(optim.make, call, 'config', self.config['train']['steps'])

    @property
    def train_lengths(self) -> tuple[int, ...]:
        """Lengths that occur in training, sorted."""
        return self.curriculum.lengths

    @property
    def ends(self) -> list[int]:
        """Longest length of training and longest of the evaluation, sorted; one if they are equal."""
        return sorted({self.train_lengths[-1], self.eval_lengths[-1]})

    @property
    def longest(self) -> int:
        """Longest length of training and evaluation."""
        return max(self.train_lengths[-1], self.eval_lengths[-1])

    @property
    def max_len(self) -> int:
        """Longest sequence, in tokens, of the lengths in the config. It sets the number of rows of learned position
        tables."""
        longest = spec.lengths(self.config['eval']['lengths'], 'eval.lengths')[-1]
        return max(self.task.num_tokens(length) for length in (self.train_lengths[-1], longest))

    @property
    def position(self) -> str:
        """Spec of the position scheme at the start of training."""
        return self.config['model']['position']

    @property
    def final_position(self) -> str:
        """Spec of the position scheme at the end of training, which is also the one evaluated."""
        return self.config['train']['final_position'] or self.position

    def notes(self) -> list[str]:
        """Warnings about a config that is valid but may not be what its author wants."""
        found, train, seed = [], self.config['train'], self.config['seed']
        if seed and all(member['seed'] != seed for member in self.members):
            found.append(f'seed={seed} is not used: the seeds of the members are those of population.seed')
        asked, met = spec.lengths(train['lengths'], 'train.lengths')[-1], self.train_lengths[-1]
        if met < asked:
            found.append(
                f'curriculum {train["curriculum"]!r} draws no length above {met} in {train["steps"]} steps, though '
                f'train.lengths goes up to {asked}: trained lengths are those drawn'
            )
        if not (any(scheme.directed for scheme in self.final_shapes.stacks[0].positions) or self._one_sided()):
            found.append(
                f'position {self.final_position!r} does not tell left from right: this encoder sees a sequence and its '
                'mirror image alike'
            )
        return found

    def _one_sided(self) -> bool:
        """Whether an attention mask differs from its mirror image, so that it tells left from right. Only the first
        1024 tokens are compared."""
        tokens = min(self.task.num_tokens(self.train_lengths[-1]), 1024)
        maps = (np.asarray(block.mask.dense(tokens, tokens)) for block in self.final_shapes.stacks[0].blocks)
        return any((seen != seen[..., ::-1, ::-1]).any() for seen in maps)

    def model(self, position: str | None = None, key: jax.Array | None = None) -> Model:
        """Model with new weights, drawn from `key` or, by default, from the seed of the first member. `position`
        replaces the position scheme of the config."""
        settings = {**self.config['model'], 'position': position or self.position}
        decoder = {name: settings.pop(name) for name in ('decoder_layers', 'decoder_position', 'cross_position')}
        removed, layers, task = settings.pop('pruned'), decoder['decoder_layers'], self.task
        if task.halves and not layers:
            settings['readout'] = 'pair'
        max_len = self.max_len // 2 if layers else self.max_len
        sizes: dict[str, Any] = dict(vocab_size=task.vocab_size, num_classes=task.num_classes, max_len=max_len)
        rngs = prng.streams(self.keys(Purpose.WEIGHTS)[0] if key is None else key)
        made: Any = arguments.build(Encoder, spec.Call('model', (), settings), 'config', **sizes, rngs=rngs)
        if layers:
            made = EncoderDecoder(
                made,
                max_len=max_len,
                layers=layers,
                position=decoder['decoder_position'] or settings['position'],
                cross_position=decoder['cross_position'],
                position_per_layer=settings['position_per_layer'],
                pattern=settings['pattern'],
                rngs=rngs,
            )
        with spec.setting('model.pruned'):
            heads.prune(made, heads.parse(removed))
        return heads.add_gates(made) if self.config['train']['head_penalty'] else made

    def keys(self, purpose: Purpose) -> jax.Array:
        """One random key per member, for one purpose."""
        return jnp.stack([jax.random.fold_in(jax.random.key(member['seed']), purpose) for member in self.members])

    @property
    def varied(self) -> dict[str, jax.Array]:
        """Settings other than the seed in which members differ, each an array [P]."""
        names = [name for name in self.members[0] if name != 'seed']
        return {name: jnp.array([member[name] for member in self.members], jnp.float32) for name in names}

    @functools.cached_property
    def held_out(self) -> Task:
        """Task on data kept from training."""
        return self.task.held_out()

    @functools.cached_property
    def first_shapes(self) -> Model:
        """Model at the start of training, with shapes instead of weights."""
        return nnx.eval_shape(self.model)

    @functools.cached_property
    def final_shapes(self) -> Model:
        """Model under the final position scheme, with shapes instead of weights. It has the same parameters as the
        first."""
        if self.final_position == self.position:
            return self.first_shapes
        with spec.setting('train.final_position'):
            return nnx.eval_shape(lambda: self.model(self.final_position))

    @functools.cached_property
    def state_shapes(self) -> training.State:
        """Shapes and shardings of the training state."""
        params = nnx.to_pure_dict(nnx.state(self.first_shapes, nnx.Param))
        members = len(self.members)
        stacked = jax.tree.map(lambda x: jax.ShapeDtypeStruct((members, *x.shape), x.dtype), params)
        state = jax.eval_shape(self._state, stacked)
        return jax.tree.map(lambda x, sharding: x.update(sharding=sharding), state, self.layout.shardings(state))

    def init(self) -> training.State:
        """Training state before the first step."""
        # Not jitted: every member, and every model of the same width, then reuses the same small programs.
        models = [self.model(key=key) for key in self.keys(Purpose.WEIGHTS)]
        weights = [nnx.to_pure_dict(nnx.state(model, nnx.Param)) for model in models]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights)
        return self.layout.place(self._state(stacked))

    def init_from(self, params: Any) -> training.State:
        """Training state before the first step, with the parameters [P, ..] of another run: one set per member, or a
        single set for all members. Raises `UserError` if the shapes do not fit."""
        self.check_weights(params)
        stacked = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(self.members), *leaf.shape[1:])), params)
        return self.layout.place(self._state(stacked))

    def check_weights(self, params: Any) -> None:
        """Raises `UserError` if the shapes of another run's parameters [P, ..] do not fit."""
        wanted = self.state_shapes.params
        one = {jax.tree_util.keystr(path): leaf.shape[1:] for path, leaf in jax.tree.leaves_with_path(wanted)}
        other = {jax.tree_util.keystr(path): leaf.shape[1:] for path, leaf in jax.tree.leaves_with_path(params)}
        if one != other:
            path = next(path for path in (*one, *other) if one.get(path) != other.get(path))
            raise spec.UserError(
                f'the weights to start with do not fit: {path} is {other.get(path)} there and {one.get(path)} here'
            )
        members = len(jax.tree.leaves(params)[0])
        if members not in (1, len(self.members)):
            raise spec.UserError(
                f'the weights to start with are those of {members} members, but this run has {len(self.members)}'
            )

    def _state(self, params: Any) -> training.State:
        return training.init(params, self.optimizer(), self.config['train']['average'])

    def chunk(self, final: bool = False, meanwhile: Callable[[], None] = lambda: None) -> 'Program':
        """Compiled training program under the first or the `final` position scheme. `meanwhile` is called after
        tracing, before the compiler starts, and must not block: it may start a thread."""
        layout = self.layout
        chunk = self._steps(final).compiled(shardings=(layout.shardings(self.state_shapes), layout.replicated))
        task, keys, varied = self._inputs()
        options = layout.compiler_options
        if self.config['model']['remat'] and jax.default_backend() == 'cpu':
            # Without the barriers, the compiler would merge the recomputation with the first computation.
            options['xla_disable_hlo_passes'] = 'cse_barrier_expander'
        lowered = chunk.lower(self.state_shapes, task, keys, np.int32(0), varied)
        meanwhile()
        program = lowered.compile(options)
        copied = self.logits_size if jax.default_backend() == 'cpu' else 0  # by products that transpose them
        return Program(
            lambda state, stop: program(state, task, keys, np.int32(stop), varied), memory.needed(program) + copied
        )

    def first_nan(self, state: training.State, final: bool = False) -> str:
        """Operation that makes the first NaN in the step after `state`, with its line in the code. The step is computed
        one operation after the other, on one device."""
        task, keys, varied = self._inputs()
        arguments = jax.device_put(jax.device_get((state, task, jax.random.key_data(keys), varied)))
        state, task, keys, varied = arguments
        steps = dataclasses.replace(self._steps(final), summed=lambda function: function)
        try:
            with jax.disable_jit(), jax.debug_nans(True):
                steps(state, task, jax.random.wrap_key_data(keys), state.step + 1, varied)
        except FloatingPointError as error:
            return f'{" ".join(str(error).split())[:100]}, {_line_of(error)}'
        return 'no operation makes a NaN of finite numbers'

    @property
    def logits_size(self) -> int:
        """Bytes of the attention logits of one layer in a training step; 0 if the model does not hold them."""
        train, tokens = self.config['train'], self.task.num_tokens(self.train_lengths[-1])
        if not self.first_shapes.quadratic(tokens):
            return 0
        examples = at_once(train) * (len(self.members) if self.layout.together else 1)
        return 4 * examples * self.config['model']['heads'] * self.first_shapes.context(tokens) ** 2

    def _inputs(self) -> tuple[Task, jax.Array, dict[str, jax.Array]]:
        """Inputs of the training program besides the state."""
        keys, varied = self.layout.place((self.keys(Purpose.TRAINING), self.varied))
        return self.layout.replicate(self.task), keys, varied

    def _steps(self, final: bool) -> training.Chunk:
        """Training steps under the first or the `final` position scheme."""
        train, layout = self.config['train'], self.layout
        penalty = train['head_penalty']
        return training.Chunk(
            nnx.split(self.final_shapes if final else self.first_shapes, nnx.Param)[0],
            self.optimizer,
            curriculum=self.curriculum,
            buckets=buckets.choose(self.train_lengths, self.task.num_tokens, train['buckets']),
            batch_size=train['batch_size'],
            length_per=train['length_per'],
            microbatches=train['microbatches'],
            penalty=(lambda params: penalty * heads.expected_open(params)) if penalty else None,
            non_finite=train['non_finite'],
            average=train['average'],
            together=layout.together,
            summed=layout.summed,
        )

    @functools.cached_property
    def evaluator(self) -> evaluation.Evaluator:
        """Evaluator of one member at a time, on held-out data. It uses all devices, whatever the mesh of training."""
        return self.evaluator_of(self.final_shapes)

    def evaluator_of(self, model: Model, **changes: Any) -> evaluation.Evaluator:
        """Evaluator of a model of this kind, or of its shapes; `changes` replace settings in `eval`. It is called with
        the model's state, a pure dict."""
        settings = {**self.config['eval'], **changes}
        graphdef, state = nnx.split(model)
        return evaluation.Evaluator(
            graphdef,
            nnx.to_pure_dict(state),
            self.held_out,
            lengths=self.eval_lengths,
            examples=settings['examples'],
            batch_size=settings['batch_size'],
            programs=settings['buckets'],
            seed=settings['seed'],
            quadratic=self.final_shapes.quadratic,
            tiled=in_tiles(model),
            layers=sum(len(stack.blocks) for stack in self.final_shapes.stacks),
            layout=parallel.Layout(parallel.make_mesh()),
        )

    def evaluate(self, params: Any, members: Iterable[int] | None = None) -> evaluation.Results:
        """Results under the final position scheme. `members` are the indices of the members to evaluate, by default
        all. Every row begins with the seed of its member and ends with the other settings in which members differ."""
        every = evaluation.Results([], [], [], {})
        for index in range(len(self.members)) if members is None else members:
            member = self.members[index]
            name = f'evaluate {population.named(member)}' if len(self.members) > 1 else 'evaluate'
            results = self.evaluator(jax.tree.map(lambda x, index=index: x[index], params), name, member['seed'])
            others = {name: value for name, value in member.items() if name != 'seed'}
            for name in 'rows', 'positions', 'confusions':
                new = getattr(results, name)
                getattr(every, name).extend({'seed': member['seed'], **row, **others} for row in new)
            every.too_large.update(results.too_large)
        return every

    def survivors(self, params: Any) -> list[int]:
        """Indices of the members whose parameters are all finite."""
        finite = jax.tree.map(lambda x: np.isfinite(x).reshape(len(self.members), -1).all(1), params)
        return np.flatnonzero(np.all(jax.tree.leaves(finite), axis=0)).tolist()


def _line_of(error: BaseException) -> str:
    """Innermost line of this package in the traceback of an error, or in that of the operation that was transposed."""
    package = str(Path(__file__).parents[1])
    frames = [f'{frame.filename}:{frame.lineno} in {frame.name}' for frame in traceback.extract_tb(error.__traceback__)]
    forward = re.findall(r'File "(.*)", line (\d+), in (\w+)', str(error.__cause__ or ''))
    frames += [f'{file}:{line} in {name}' for file, line, name in forward]
    return next(frame for frame in reversed(frames) if frame.startswith(package))


def at_once(train: Mapping[str, Any]) -> int:
    """Number of examples in one microbatch of a training step."""
    return train['batch_size'] // max(train['microbatches'], 1)
