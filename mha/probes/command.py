"""Contents of the page of `eval.py --probe`, for one run or for two: recordings of a text or of examples of their task,
accuracies without each head, and encodings."""

import contextlib
from pathlib import Path

import numpy as np

from mha import positions, spec
from mha.pretrained import is_checkpoint, run_in
from mha.probes.files import Probed
from mha.probes.importance import Rows, ablations, of_run
from mha.probes.recording import probe
from mha.probes.schemes import Encoding, encodings
from mha.run import finished
from mha.run.finished import Finished
from mha.spec import UserError

MOST_TOKENS = 4096
"""Largest number of tokens of a recording on a page."""
MOST_LENGTHS = 6
MOST_ABLATED = 3
"""Largest number of lengths at which heads are removed."""
MOST_EXAMPLES = 256
"""Largest number of examples per length and head, unless `--examples` is given."""
MOST_POSITIONS = 2048
"""Largest number of tokens whose encodings are drawn, if the run has evaluated lengths of fewer."""


def second(against: str, directory: Path, task: str | None = None) -> Finished:
    """Run that `--against` names, on `task` if it is given: a directory, or a step of which the run in `directory`
    keeps the checkpoint."""
    with spec.setting('--against'):
        if not against:
            raise UserError('give the directory of another run, or a step of this one')
        if against.isdecimal() and not Path(against).exists():
            if is_checkpoint(directory):
                raise UserError(f'a pretrained model has no earlier steps, such as {against} - give another directory')
            run = finished.load(directory, step=int(against))
        else:
            run = run_in(Path(against))
        run = run.surviving()
        return run if task is None else run.variant(task=task)


def recordings(
    first: Finished, against: Finished | None = None, text: str = '', lengths: str = '', seed: int = 0
) -> list[Probed]:
    """Recordings of a run, or of two, on a text, or on an example of the task for each of the lengths, by default the
    longest trained one. Raises `UserError` if that is too much for a page, or if the runs read different tokens."""
    if text and lengths:
        raise UserError('--probe=<text> reads a text and --lengths examples of the task - choose one')
    if text and first.task.halves and not first.task.has_source:
        raise UserError('the model reads two sequences, not one text - give --lengths with a bare --probe')
    chosen: list[int | None] = [None]
    if not text:
        chosen = [*spec.lengths(lengths, '--lengths')] if lengths else [first.experiment.train_lengths[-1]]
    if len(chosen) > MOST_LENGTHS:
        raise UserError(f'a page shows up to {MOST_LENGTHS} lengths, not the {len(chosen)} of --lengths')
    runs = [run for run in (first, against) if run is not None]
    for run in runs:
        with spec.setting('--against') if run is against else contextlib.nullcontext():
            _check_heads(run)
            for length in chosen:
                _check_size(run, text, length)
    return [one for length in chosen for one in _alike([_recorded(run, text, length, seed) for run in runs])]


def ablated(run: Finished, lengths: str = '', examples: int | None = None) -> Rows:
    """Accuracies of a run without each of its heads (`ablations`) at up to three lengths, by default the longest
    trained and the longest evaluated one. By default, `examples` are as many as in its evaluation, but at most 256."""
    chosen = spec.lengths(lengths, '--lengths')[:MOST_ABLATED] if lengths else run.experiment.ends
    examples = examples or min(run.config['eval']['examples'], MOST_EXAMPLES)
    return ablations(run, lengths=chosen, examples=examples)


def drawn_encodings(first: Finished, against: Finished | None = None) -> dict[str, list[Encoding]]:
    """Encodings of one run or of two, by their names, up to the longest evaluated length whose sequences have at most
    `MOST_POSITIONS` tokens."""
    found: dict[str, list[Encoding]] = {}
    for run in (run for run in (first, against) if run is not None):
        same = run.experiment.final_position == run.trained.final_position
        lengths = (run.trained if same else run.experiment).eval_lengths
        short = [length for length in lengths if run.task.num_tokens(length) <= MOST_POSITIONS]
        step = '' if run.step is None else f', step {run.step}'
        name = f'{run.directory.resolve().name}{step}'
        more = f'{name}, {run.experiment.final_position}'
        found[more if name in found else name] = encodings(run, max([run.experiment.train_lengths[-1], *short]))
    return found


def _check_heads(run: Finished) -> None:
    if not of_run(run):
        raise UserError(f'the model in {run.directory} has no heads left to show')


def _check_size(run: Finished, text: str, length: int | None) -> None:
    if length is not None and length < run.task.shortest:
        raise UserError(f'--lengths: the shortest example of the task is {run.task.shortest}, not {length}')
    count = len(run.task.tokenize(text)) if length is None else run.task.num_tokens(length)
    if not count:
        raise UserError(f'--probe: {text!r} has no tokens')
    if count > MOST_TOKENS:
        shorter = 'a shorter text' if text else 'shorter --lengths'
        raise UserError(f'a page shows up to {MOST_TOKENS:,} tokens, not {count:,} - give {shorter}')
    for scheme in run.model.schemes:
        positions.checked_extent(scheme, run.model.context(count), run.experiment.final_position)


def _recorded(run: Finished, text: str, length: int | None, seed: int) -> Probed:
    seen = probe(run, text, seed=seed) if text else probe(run, length=length, seed=seed)
    trained = run.model.context(run.task.num_tokens(run.experiment.train_lengths[-1]))
    return Probed(seen, str(run.directory), run.experiment.final_position, length, run.step, trained)


def _alike(probed: list[Probed]) -> list[Probed]:
    """Recordings of the same tokens; raises `UserError` for others."""
    first, *others = (one.recording for one in probed)
    for other in others:
        if first.labels != other.labels or not np.array_equal(first.tokens, other.tokens):
            raise UserError('the run of --against reads other tokens - choose a run on the same task')
    return probed
