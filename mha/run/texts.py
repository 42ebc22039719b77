"""Texts on the terminal: what a finished run makes of one, in words, or of several, as lines of JSON."""

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

from mha.machine import files
from mha.run.finished import Finished
from mha.run.log import per_second
from mha.spec import UserError, visible

BEST = 5
"""Number of labels that are shown, the most likely ones."""


def generate(run: Finished, prompts: str | list[str], log_probs: bool = False, **options: Any) -> None:
    """Prints the texts with which the model continues prompts; that of a single one while it is made. `options` are
    those of `Finished.stream`."""
    alone = isinstance(prompts, str)
    made, shown, pieces = [], '', [(time.perf_counter(), 0)]
    for made in run.stream(prompts, **options):
        pieces.append((time.perf_counter(), sum(len(one.tokens) for one in made)))
        if alone:
            whole = prompts + run.task.gap + made[0].text
            print(whole[len(shown) :], end='', flush=True)
            shown = whole
    for prompt, one in zip([prompts] if alone else prompts, made, strict=True):
        printed = [run.task.decode([token]) for token in one.tokens] if log_probs else []
        if not alone:
            line: dict[str, Any] = {'prompt': prompt, 'text': one.text}
            if log_probs:
                line |= {'tokens': printed, 'log_probs': one.log_probs, 'log_prob': sum(one.log_probs)}
            print(json.dumps(line, ensure_ascii=False))
        elif log_probs:
            rows = [*zip(map(repr, printed), one.log_probs, strict=True), ('sum', sum(one.log_probs))]
            print('\n\n' + '\n'.join(f'{token:12} {log_prob:10.4f}' for token, log_prob in rows), end='')
    print(f'\n\n{_speed(pieces)}', file=sys.stderr)


def classify(run: Finished, texts: str | list[str]) -> None:
    """Prints the most likely labels of texts, with their probabilities."""
    alone = isinstance(texts, str)
    texts = [texts] if alone else texts
    found: Any = run.classify(texts)
    for text, chances in zip(texts, found, strict=True):
        best = dict(itertools.islice(chances.items(), BEST))
        if alone:
            print(*(f'{chance:.3f}  {visible(label)}' for label, chance in best.items()), sep='\n')
        else:
            line = {'text': text, 'label': next(iter(best)), 'probabilities': best}
            print(json.dumps(line, ensure_ascii=False))


def lines(path: Path) -> list[str]:
    """Texts of a file or a pipe, one in every line."""
    try:
        with path.open('rb') as file:
            content = file.read(files.LARGEST + 1)
        if len(content) > files.LARGEST:
            raise OSError(f'it has more than {files.LARGEST:,} bytes')
        lines = content.decode('utf-8-sig').replace('\r\n', '\n').removesuffix('\n').split('\n')
    except (OSError, UnicodeDecodeError) as error:
        raise files.unreadable(path, error) from error
    if empty := [number for number, line in enumerate(lines, 1) if not line]:
        raise UserError(f'{path} must have a prompt in every line, but line {empty[0]} is empty')
    return lines


def _speed(pieces: list[tuple[float, int]]) -> str:
    """Speed of a generation, from the time and the number of tokens at its start and after each piece. The first piece
    compiles, so it does not count unless it is all."""
    (start, _), (first, compiled), *_ = pieces
    end, tokens = max(pieces, key=lambda piece: piece[1])
    if tokens > compiled:
        return f'{tokens:,} tokens, {per_second(tokens - compiled, end - first):,.0f} tokens/s after compiling'
    return f'{tokens:,} tokens, {per_second(tokens, end - start):,.0f} tokens/s, compiling included'
