"""Finished runs in a notebook: `load('runs/a')` gives the trained model, its task, and evaluations of its weights."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mha.arguments import Count, Seed, at_least, checked
from mha.machine import files
from mha.model import generation, heads
from mha.model.seq2seq import EncoderDecoder, Model
from mha.run import population, workdir
from mha.run.build import build
from mha.run.checkpoint import Checkpoints
from mha.run.checks import count, shapes
from mha.run.experiment import Experiment
from mha.spec import UserError, check_utf8, compact, setting, split
from mha.spec import lengths as parse_lengths
from mha.tasks import Batch, Task
from mha.training.evaluation import Row
from mha.training.step import logits_of


@checked
def load(directory: str | Path, member: int = 0, step: int | None = None) -> 'Finished':
    """Finished run in a directory. `member` is the index of the member, for a run that trained a population, and `step`
    that of a checkpoint before the last one, if the run still keeps it; it is taken, with a line on stderr, if the last
    one is damaged. Raises `UserError` if the directory holds no
    finished run, or files that do not belong together."""
    directory = Path(directory).expanduser()
    config = workdir.load_config(directory)
    if workdir.status(directory) == 'diverged':
        raise UserError(f'the run in {directory} diverged: there is nothing to evaluate')
    if not workdir.finished(directory):
        raise UserError(f'the run in {directory} is not finished - run its train.py command again first')
    try:
        config['mesh'] = {'data': 1, 'model': 1}  # the devices of training do not matter
        trained = build(config, eval_lengths=config['eval']['lengths'])
        steps = config['train']['steps']
    except KeyError as error:
        raise UserError(f'{directory / "config.json"} is not the config of a run: {error} is missing') from error
    except (TypeError, AttributeError, ArithmeticError) as error:  # a setting of another type
        raise UserError(f'{directory / "config.json"} is not the config of a run: {error}') from error
    workdir.check_data(directory, trained.task.sha256)
    workdir.check_subwords(directory, trained.task.tokenizer)
    if not 0 <= member < len(trained.members):
        raise UserError(f'{directory} has members 0 to {len(trained.members) - 1}, not {member}')
    files.check_regular(directory / 'checkpoints')
    checkpoints = Checkpoints(directory)
    if (last := checkpoints.latest()) != steps:
        state = 'no checkpoint' if last is None else f'only the checkpoint of step {last}'
        raise UserError(
            f'{directory} holds {state}, not that of its last step {steps} - remove its summary.json, and run its '
            'train.py command again'
        )
    if step is not None and step not in checkpoints.steps():
        kept = ' and '.join(map(str, checkpoints.steps()))
        raise UserError(f'{directory} keeps the checkpoints of steps {kept}, not of step {step}')
    state = checkpoints.restore(like=trained.state_shapes, step=step)
    if (used := int(state.step)) != steps:
        step = used
    return Finished(directory, trained, trained, trained.layout.fetch(state.evaluated), member, step)


def facts(run: Experiment) -> dict[str, Any]:
    """Facts about an experiment in the summary of its run."""
    return {
        'steps': run.config['train']['steps'],
        'parameters': count(run.state_shapes.params),
        'trained_lengths': [run.train_lengths[0], run.train_lengths[-1]],
        'chance': run.task.chance,
        'metric': run.task.metric,
        'data_sha256': run.task.sha256,
        **run.task.facts,
    }


@dataclasses.dataclass(frozen=True)
class Continuation:
    """Text with which a model continues a prompt."""

    text: str
    tokens: list[int]
    """Tokens of the text, up to the one that completes it."""
    log_probs: list[float]
    """Log-probability of each token under the model, whatever the temperature."""


@dataclasses.dataclass(frozen=True, repr=False)
class Finished:
    """Trained model, together with the task and the settings of an evaluation."""

    directory: Path
    trained: Experiment
    """Experiment as it was trained."""
    experiment: Experiment
    """Experiment as it is evaluated."""
    params: Any
    """Parameters of all members, [P, ..] each, in host memory."""
    member: int
    step: int | None = None
    """Step of the checkpoint, if it was asked for or the last one is damaged."""

    def __repr__(self) -> str:
        under = f'task={self.config["task"]!r}, position={self.experiment.final_position!r}'
        return f'Finished({str(self.directory)!r}, member={self.member}, {under})'

    @property
    def config(self) -> dict[str, Any]:
        """Config of the evaluation, a nested dict; that of the member alone in a population."""
        return population.config_of(self.experiment.config, self.experiment.members[self.member])

    @property
    def task(self) -> Task:
        """Task of the evaluation, on held-out data."""
        return self.experiment.held_out

    @functools.cached_property
    def model(self) -> Model:
        """Model with the member's weights, under the position scheme of the evaluation."""
        graphdef, _ = nnx.split(self.experiment.final_shapes, nnx.Param)
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf[self.member]), self.params)
        return nnx.merge(graphdef, nnx.State(params))

    @property
    def record(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Config and summary of the training, as reports read them."""
        return self.trained.config, workdir.summary(self.directory)

    @property
    def rows(self) -> list[Row]:
        """Rows of the member in extrapolation.csv: the evaluation at the end of training."""
        member = self.trained.members[self.member]
        rows = workdir.read_rows(self.directory / 'extrapolation.csv')
        return [row for row in rows if all(row[name] == value for name, value in member.items())]

    def surviving(self) -> 'Finished':
        """Same run with the first member of its population that has not diverged."""
        return dataclasses.replace(self, member=self.experiment.survivors(self.params)[0])

    @checked
    def variant(
        self,
        *,
        position: str | None = None,
        task: str | None = None,
        lengths: str | Iterable[int] | None = None,
        examples: Annotated[int, at_least(1)] | None = None,
    ) -> 'Finished':
        """Same weights in another evaluation: under another position scheme, on a task with the same symbols and
        classes, at other lengths (`'40,80'` or numbers), or with another number of examples. Raises `UserError` if the
        weights do not fit."""
        config = {
            name: dict(value) if isinstance(value, dict) else value for name, value in self.experiment.config.items()
        }
        if position is not None:
            split(position)  # an empty one would be that of the config
            config['train']['final_position'] = position
        config['task'] = config['task'] if task is None else task
        config['eval']['examples'] = config['eval']['examples'] if examples is None else int(examples)
        lengths = self.experiment.eval_lengths if lengths is None else lengths
        text = lengths if isinstance(lengths, str) else ','.join(map(str, lengths))
        parse_lengths(text)
        experiment = build(config, eval_lengths=text)
        _check_fits(experiment, self.trained)
        return dataclasses.replace(self, experiment=experiment)

    @checked
    def pruned(self, removed: str) -> 'Finished':
        """Run whose model also lacks these heads, `'0:1,3;2:0'` (`mha.model.heads`), and is smaller. Its other weights
        stay the same. Raises `UserError` for heads that the model never had."""
        config = self.experiment.config
        with setting('model.pruned'):
            before, more = heads.parse(config['model']['pruned']), heads.parse(removed)
            if more <= before:
                return self
            text = heads.written(before | more)
            return self._changed(lambda model: heads.prune(model, more), _with(config, 'model', pruned=text))

    def gated(self, penalty: float) -> 'Finished':
        """Run whose heads have gates, all open, to be trained under a penalty (`train.head_penalty`). The same run if
        it has gates, or if the penalty is 0."""
        if not penalty or self.experiment.config['train']['head_penalty']:
            return self
        return self._changed(heads.add_gates, _with(self.experiment.config, 'train', head_penalty=penalty))

    def without_gates(self) -> 'Finished':
        """Run of this member without gates: heads with a closed gate are removed, and the output projections of the
        others include theirs."""
        if not self.experiment.config['train']['head_penalty']:
            return self
        closed = heads.closed(self.model)
        before = heads.parse(self.experiment.config['model']['pruned'])
        config = _with(self.config, 'train', head_penalty=0.0)
        config = _with(config, 'model', pruned=heads.written(before | closed))
        params = jax.tree.map(lambda leaf: leaf[self.member, None], self.params)
        alone = dataclasses.replace(self, member=0, params=params)
        return alone._changed(lambda model: heads.prune(heads.fold_gates(model), closed), config)

    def _changed(self, change: Callable[[Model], Model], config: Mapping[str, Any]) -> 'Finished':
        """Run of a changed model, with the config that describes it."""
        graphdef, _ = nnx.split(self.experiment.final_shapes, nnx.Param)

        def changed(params):
            model = change(nnx.merge(graphdef, nnx.State(params)))
            return nnx.to_pure_dict(nnx.state(model, nnx.Param))

        params = jax.device_get(jax.vmap(changed)(self.params))
        experiment = build(config, eval_lengths=compact(self.experiment.eval_lengths))
        return dataclasses.replace(self, trained=experiment, experiment=experiment, params=params)

    @checked
    def save(self, directory: str | Path) -> None:
        """Writes the member, as it is evaluated, into a new directory: a finished run of its own, with the results of
        an evaluation. Its optimizer starts anew if it is trained on."""
        directory = Path(directory).expanduser()
        if directory.exists():
            raise UserError(f'{directory} exists - choose another directory')
        config = _with(self.config, 'eval', lengths=compact(self.experiment.eval_lengths))
        run = build(config, eval_lengths=config['eval']['lengths'])
        state = run.init_from(jax.tree.map(lambda leaf: leaf[self.member, None], self.params))
        there = files.read_json(self.directory / 'config.json')
        steps, mesh = config['train']['steps'], there.get('mesh', config['mesh'])
        workdir.claim(directory, {**config, 'mesh': mesh}, str(self.directory))
        workdir.keep_subwords(directory, run.task.tokenizer)
        checkpoints = Checkpoints(directory)
        checkpoints.save(steps, dataclasses.replace(state, step=jnp.int32(steps)))
        checkpoints.close()
        workdir.write_rows(directory / 'extrapolation.csv', self.evaluate())
        workdir.write_json(directory / 'summary.json', {'status': 'finished', 'diverged': [], **facts(run)})

    def evaluate(self) -> list[Row]:
        """Results of the member: accuracy, exact match, loss and baseline at every length."""
        return self.experiment.evaluate(self.params, [self.member]).rows

    @checked
    def classify(self, texts: str | Sequence[str]) -> dict[str, float] | list[dict[str, float]]:
        """Labels of texts with their probabilities, the most likely first: one dict for a string, a list for several.
        As in the task, a text is cut to the longest length of training and evaluation. Raises `UserError` if a model of
        this task does not classify."""
        task, several = self.task, _texts(texts, 'texts')
        if not task.one_class:
            raise UserError('a model of this task does not label texts: that of a run on classification does')
        rows = [task.tokenize(text)[: self.experiment.longest] for text in several]
        if not all(rows):
            raise UserError('a text to classify has at least one token')
        size = np.array([len(row) for row in rows])
        valid = np.arange(max(size, default=0)) < size[:, None]
        tokens = np.zeros(valid.shape, np.int32)
        tokens[valid] = list(itertools.chain(*rows))
        graphdef, params = nnx.split(self.model, nnx.Param)
        found, at_once = [], self.config['eval']['batch_size']
        for first in range(0, len(rows), at_once):
            some = slice(first, first + at_once)
            batch = Batch(tokens[some], valid[some], targets=None, loss_mask=None, metric_mask=None)
            chances = np.asarray(_probabilities(graphdef, params, batch))
            found += [{task.classes[label]: float(row[label]) for label in np.argsort(-row)} for row in chances]
        return found[0] if isinstance(texts, str) else found

    @checked
    def generate(self, prompts: str | Sequence[str], **options: Any) -> str | list[str]:
        """Texts with which the model continues prompts: one for a string, a list for several. `options` are those of
        `stream`. Raises `UserError` if a model of this task cannot generate."""
        texts = [made.text for made in self.continuations(prompts, **options)]
        return texts[0] if isinstance(prompts, str) else texts

    @checked
    def continuations(self, prompts: str | Sequence[str], **options: Any) -> list[Continuation]:
        """Texts, tokens and log-probabilities with which the model continues prompts; see `generate`."""
        *_, made = self.stream(prompts, **options)
        return made

    @checked
    def stream(
        self,
        prompts: str | Sequence[str],
        *,
        max_length: Count = 200,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        beams: Count = 1,
        until: str = '',
        seed: Seed = 0,
        cache: bool | None = None,
    ) -> Iterator[list[Continuation]]:
        """Continuations generated so far, again and again: each text continues the one before. They end after
        `max_length` tokens, with a symbol that ends answers, or before `until`. Several `beams` give one text, at the
        end. See `mha.model.generation` for the other arguments."""
        prompts, task = _texts(prompts, 'prompts'), self.task
        written: list[list[tuple[int, float]]] = [[] for _ in prompts]
        sampling = generation.Sampling(temperature, top_k, top_p)
        if beams > 1 and sampling != generation.GREEDY:
            raise UserError('beams are for the most likely text, without temperature, top_k or top_p - choose one')
        tokens, key = [task.encode(prompt) for prompt in prompts], jax.random.key(seed)
        common: dict[str, Any] = dict(stop=task.stop, key=key, cache=cache)
        model = self.model
        if isinstance(model, EncoderDecoder):
            model, tokens = model.given(tokens, key), [[task.begin]] * len(tokens)
        if beams == 1:
            pieces = generation.stream(model, tokens, max_length, sampling=sampling, **common)
        else:
            pieces = [generation.beam_search(model, tokens, max_length, beams, **common)]
        for piece in pieces:
            for row, *new in zip(written, *(array.tolist() for array in piece), strict=True):
                row += [(token, log_prob) for token, log_prob in zip(*new, strict=True) if token != generation.ENDED]
            made = [_continuation(task, row) for row in written]
            yield [dataclasses.replace(one, text=_settled(one.text, until)) for one in made]
            if until and all(until in one.text for one in made):
                break
        yield [_continuation(task, row, until) for row in written]


def _texts(given: str | Sequence[str], what: str) -> list[str]:
    """One text or several, as a list. Raises `UserError`, which calls them `what`, for what is no UTF-8 text."""
    texts = [given] if isinstance(given, str) else [*given]
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise UserError(f'{what} are strings, not {wrong[0]!r}')
    for text in texts:
        check_utf8(text, what)
    return texts


@functools.partial(jax.jit, static_argnames='graphdef')
def _probabilities(graphdef: nnx.GraphDef, params: Any, batch: Batch) -> Float[Array, 'B C']:
    logits = logits_of(graphdef, params, batch, train=False, position=jax.random.key(0), one_length=False)
    return jax.nn.softmax(logits[:, 0])


def _with(config: Mapping[str, Any], section: str, **settings: Any) -> dict[str, Any]:
    return {**config, section: {**config[section], **settings}}


def _continuation(task: Task, written: list[tuple[int, float]], until: str = '') -> Continuation:
    """Text of tokens with log-probabilities, cut before `until`."""
    tokens = [token for token, _ in written]
    text, cut, _ = task.decode(tokens).partition(until) if until else (task.decode(tokens), '', '')
    used = next(size for size in range(len(tokens) + 1) if task.decode(tokens[:size]).startswith(text)) if cut else None
    return Continuation(text, tokens[:used], [log_prob for _, log_prob in written[:used]])


def _settled(text: str, until: str) -> str:
    """Beginning of a text that more tokens do not change: without what may be the first bytes of a character, or the
    beginning of `until`."""
    if until and until in text:
        return text.partition(until)[0]
    text = text.rstrip(chr(0xFFFD))
    begun = max((size for size in range(1, len(until)) if text.endswith(until[:size])), default=0)
    return text[: len(text) - begun]


def _check_fits(run: Experiment, trained: Experiment) -> None:
    """Raises `UserError` if a model trained as in `trained` cannot be evaluated as in `run`."""
    text = run.config['task']
    for what, one, other in (
        ('symbols', run.task.vocabulary, trained.task.vocabulary),
        ('classes', run.task.classes, trained.task.classes),
    ):
        if len(one) != len(other):
            raise UserError(f'task {text!r} has {len(one)} {what}, not the {len(other)} that the model was trained on')
        for new, old in zip(one, other, strict=True):
            if new != old:
                raise UserError(f'task {text!r} has {what} such as {new!r} where the model was trained on {old!r}')
    if shapes(run.final_shapes) != shapes(trained.final_shapes):
        raise UserError(
            f'task {text!r} has up to {run.max_len} tokens, not the {trained.max_len} that the parameters of position '
            f'{run.position!r} are for'
        )
