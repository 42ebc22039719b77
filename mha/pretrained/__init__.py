"""Pretrained models: checkpoints of BERT, RoBERTa, GPT-2, Llama, Mistral, Qwen2 and Qwen3 as finished runs, without
torch and without a network.

    run = mha.pretrained.load('gpt2')                         # a folder with config.json and model.safetensors
    run.model(tokens)                                         # an mha.Encoder
    run.variant(task="lm('notes/*.txt', scored=128)", lengths='128,1024').evaluate()
    run.generate('Dear ')

`model_type` in config.json chooses the family. Weights are put into the parts that our models have: embeddings of token
type 0 into those of positions, scales of logits into kernels, missing biases are zero. A model computes the logits of
transformers to float32 accuracy (`tests/pretrained`).
"""

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from mha import arguments, positions, spec
from mha.datasets.checkpoint_tokens import CheckpointTokens
from mha.machine.files import read_json
from mha.model.encoder import Encoder
from mha.pretrained import bert, gpt2, llama
from mha.pretrained.checkpoint import Checkpoint
from mha.pretrained.family import Translation
from mha.run import build, finished, versions
from mha.run.finished import Finished
from mha.spec import Call, UserError

__all__ = ['FAMILIES', 'Pretrained', 'is_checkpoint', 'load']

FAMILIES = {
    family.__name__: family
    for family in (bert.bert, bert.roberta, gpt2.gpt2, llama.llama, llama.mistral, llama.qwen2, llama.qwen3)
}
"""Functions from a checkpoint to its translation, by `model_type`."""
EXAMPLES = 64
"""Examples per length of an evaluation, unless a number is given."""
LONGEST = 512
"""Longest length of an evaluation, unless lengths are given."""


def is_checkpoint(folder: str | Path) -> bool:
    """Whether a folder holds a pretrained model, not a run of ours."""
    path = Path(folder) / 'config.json'
    try:
        return path.exists() and 'model_type' in read_json(path)
    except UserError:
        return False


@arguments.checked
def run_in(directory: Path) -> Finished:
    """Finished run, or pretrained model, in a directory."""
    return load(directory) if is_checkpoint(directory) else finished.load(directory)


def load(folder: str | Path) -> 'Pretrained':
    """Pretrained model in a folder, as a finished run whose task is `lm` with the tokens of the model: its next token,
    or those that are masked. Texts are read when they are first needed, by default those of `lm`. Raises `UserError`
    for a model that no `mha.Encoder` computes exactly, and for files that do not belong together."""
    folder = Path(folder).expanduser()
    if not (folder / 'config.json').exists():
        raise UserError(f'no pretrained model in {folder} (it has no config.json)')
    kind = read_json(folder / 'config.json').get('model_type')
    with spec.setting(str(folder / 'config.json')):
        family = FAMILIES[spec.choose(str(kind), FAMILIES, 'model_type')]
    translation = family(Checkpoint(folder))
    experiment = build.unchecked(_config(translation, folder))
    tokens = experiment.task.subwords
    params = _params(experiment.first_shapes, translation.params, tokens)
    return Pretrained(folder, experiment, experiment, params, 0, position_arguments=translation.position)


@dataclasses.dataclass(frozen=True, repr=False)
class Pretrained(Finished):
    """Pretrained model, together with the task and the settings of an evaluation."""

    position_arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Base of the frequencies and trained length, which position schemes take unless a spec has others."""

    @property
    def record(self):
        config, longest = self.trained.config, int(self.trained.config['train']['lengths'])
        known = {name: config[name] for name in ('seed', 'task', 'population', 'model', 'eval')}
        return known, {'status': 'finished', 'metric': self.task.metric, 'trained_lengths': [1, longest]}

    def variant(self, *, position: str | None = None, task: str | None = None, **others: Any) -> 'Finished':
        """Same weights in another evaluation; see `Finished.variant`. In `position`, `theta` and `original_length`
        default to those of the model. The tokens of an `lm` task are the model's."""
        position = None if position is None else _completed(position, self.position_arguments)
        task = None if task is None else _with_tokens(task, self.directory)
        return super().variant(position=position, task=task, **others)


def _config(translation: Translation, folder: Path) -> dict[str, Any]:
    """Config of a run of one step that would give a model of this kind."""
    sizes = 'self', 'vocab_size', 'num_classes', 'max_len', 'rngs'
    defaults = {name: each.default for name, each in inspect.signature(Encoder.__init__).parameters.items()}
    trained = translation.trained_length
    longest = min(trained, LONGEST)
    config = {
        'seed': 0,
        'task': _with_tokens('lm', folder),
        'population': {},
        'model': {
            **{name: value for name, value in defaults.items() if name not in sizes},
            **dict(init='gpt2', dropout_rate=0.0),  # of this init for its scale of token embeddings, 1
            **translation.settings,
        },
        'train': {
            **dict(steps=1, batch_size=1, microbatches=1, lengths=str(trained), length_per='batch'),
            **dict(curriculum='uniform', buckets=1, final_position=None, final_steps=0, average=0.0, members='auto'),
            **dict(log_every_steps=1, checkpoint_every_steps=1),
        },
        'mesh': {'data': 1, 'model': 1},
        'optimizer': {'name': 'adam', 'learning_rate': 1e-5, 'schedule': 'constant'},
        'eval': {
            'lengths': spec.compact(sorted({max(longest // part, 1) for part in (1, 2, 4)})),
            **dict(examples=EXAMPLES, batch_size=16, buckets=8, every_steps=0, seed=0),
        },
    }
    return versions.current(config)


def _params(model: Any, given: Mapping[str, np.ndarray], tokens: CheckpointTokens) -> Any:
    """Parameters of a model [1, ..], in the order of its own. The embeddings have one more row, that of the token with
    which our tasks hide others."""
    left = dict(given)
    table = left['embedding.embedding']
    hidden = np.zeros_like(table[:1]) if tokens.mask is None else table[tokens.mask][None]
    left['embedding.embedding'] = np.concatenate([table, hidden])

    def stored(path, leaf):
        return left.pop(jax.tree_util.keystr(path, simple=True, separator='.')).reshape(1, *leaf.shape)

    params = jax.tree.map_with_path(stored, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert not left, f'the model has no parameters {[*left]}'
    return params


def _with_tokens(task: str, folder: Path) -> str:
    """Spec of a task on texts with the tokens of a checkpoint, unless it has others."""
    call, *more = spec.parse(task)
    if more or call.name != 'lm':
        return task
    tokens = Call('checkpoint', (str(folder.resolve()),))
    return str(Call(call.name, call.args, {'tokens': str(tokens), **call.kwargs}))


def _completed(position: str, arguments: Mapping[str, Any]) -> str:
    """Spec of position schemes with `arguments` that it does not have, in those that take them."""
    return ', '.join(
        '|'.join(str(_with(call, arguments)) for call in spec.parse(text)) for text in spec.split(position)
    )


def _with(call: Call, arguments: Mapping[str, Any]) -> Call:
    scheme = spec.load(positions, call.name, positions.Position, 'position scheme')
    accepted = [*inspect.signature(scheme.__init__).parameters.values()][2:]
    given = {*(each.name for each in accepted[: len(call.args)]), *call.kwargs}
    # A length that is None unless it is given belongs to a form of the scheme that must be chosen.
    new = {each.name for each in accepted if each.default is not None and each.name not in given} & {*arguments}
    return Call(call.name, call.args, {**call.kwargs, **{name: arguments[name] for name in arguments if name in new}})
