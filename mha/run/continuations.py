"""Texts with which a model continues prompts, as they are printed in the terminal."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from mha.run.finished import Finished
from mha.spec import UserError


def write(run: Finished, prompts: str | Path, log_probs: bool = False, **options: Any) -> None:
    """Prints the continuation of a prompt while it is made; those of a file with a prompt in every line as lines of
    JSON. With `log_probs`, also the tokens and their log-probabilities."""
    texts, shown = ([prompts], '') if isinstance(prompts, str) else (_lines(prompts), None)
    made, pieces = [], [(time.perf_counter(), 0)]
    for made in run.stream(texts, **options):
        pieces.append((time.perf_counter(), sum(len(one.tokens) for one in made)))
        if shown is not None:
            whole = texts[0] + run.task.gap + made[0].text
            print(whole[len(shown) :], end='', flush=True)
            shown = whole
    for prompt, one in zip(texts, made, strict=True):
        printed = [run.task.decode([token]) for token in one.tokens] if log_probs else []
        if shown is None:
            line: dict[str, Any] = {'prompt': prompt, 'text': one.text}
            if log_probs:
                line |= {'tokens': printed, 'log_probs': one.log_probs, 'log_prob': sum(one.log_probs)}
            print(json.dumps(line, ensure_ascii=False))
        elif log_probs:
            rows = [*zip(map(repr, printed), one.log_probs, strict=True), ('sum', sum(one.log_probs))]
            print('\n\n' + '\n'.join(f'{token:12} {log_prob:10.4f}' for token, log_prob in rows), end='')
    print(f'\n\n{_speed(pieces)}', file=sys.stderr)


def _speed(pieces: list[tuple[float, int]]) -> str:
    """Speed of a generation, from the time and the number of tokens at its start and after each piece. The first piece
    compiles, so it does not count unless it is all."""
    (start, _), (first, compiled), *_ = pieces
    end, tokens = max(pieces, key=lambda piece: piece[1])
    if tokens > compiled:
        return f'{tokens:,} tokens, {(tokens - compiled) / (end - first):,.0f} tokens/s after compiling'
    return f'{tokens:,} tokens, {tokens / (end - start):,.0f} tokens/s, compiling included'


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding='utf-8-sig').removesuffix('\n').split('\n')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'cannot read the prompts in {path}: {error}') from error
    if empty := [number for number, line in enumerate(lines, 1) if not line]:
        raise UserError(f'{path} must have a prompt in every line, but line {empty[0]} is empty')
    return lines
