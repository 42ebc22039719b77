"""Translations of test sentences, measured with sacrebleu beside two baselines that need no model.

BLEU compares n-grams of words (Papineni et al., 2002), chrF those of characters (Popovic, 2015); both are computed by
sacrebleu (Post, 2018, arXiv:1804.08771), whose signature states every setting. The baselines are the source itself,
which names and placeholders make better than nothing, and the translation of the training source that shares most
character n-grams with it.
"""

import collections
import dataclasses
import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from mha.arguments import Count, checked
from mha.machine import parallel
from mha.run.finished import Continuation, Finished
from mha.spec import UserError

Pair = tuple[str, str]
"""Source and target."""
BATCH = 64
"""Number of sentences that are translated together."""
MOST_SOURCES = 20_000
"""Largest number of training sources that are searched for a similar one."""
NGRAMS = (2, 3, 4)
"""Sizes of the character n-grams by which sources are compared."""


@dataclasses.dataclass(frozen=True)
class Score:
    """Scores of translations against references, from 0 to 100."""

    bleu: float
    chrf: float
    signatures: tuple[str, str]
    """Settings of sacrebleu for BLEU and chrF."""

    @classmethod
    def of(cls, translations: Sequence[str], references: Sequence[str]) -> 'Score':
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF

        def score(metric):
            return metric.corpus_score(translations, [references]).score, str(metric.get_signature())

        (bleu, of_bleu), (chrf, of_chrf) = score(BLEU()), score(CHRF())
        return cls(bleu, chrf, (of_bleu, of_chrf))


@dataclasses.dataclass(frozen=True)
class Translations:
    """Translations of pairs by a model, with their scores and those of the baselines."""

    pairs: list[Pair]
    length: int
    """Largest number of tokens of a source or target."""
    beams: int
    texts: list[str]
    tokens: int
    seconds: float
    scores: dict[str, Score]

    def rows(self) -> list[dict[str, str]]:
        names = 'source', 'reference', 'translation'
        return [dict(zip(names, (*pair, text), strict=True)) for pair, text in zip(self.pairs, self.texts, strict=True)]

    def summary(self) -> dict[str, Any]:
        return {
            'pairs': len(self.pairs),
            'length': self.length,
            'beams': self.beams,
            'scores': {name: {'bleu': score.bleu, 'chrf': score.chrf} for name, score in self.scores.items()},
            'signatures': self.scores['model'].signatures,
        }

    def table(self) -> str:
        many = '' if self.beams == 1 else 's'
        rows = [f'{name:22}{score.bleu:8.1f}{score.chrf:8.1f}' for name, score in self.scores.items()]
        return '\n'.join(
            (
                f'{"":22}{"BLEU":>8}{"chrF":>8}',
                *rows,
                *map('|'.join, zip(('BLEU', 'chrF'), self.scores['model'].signatures, strict=True)),
                f'{len(self.pairs)} test pairs of up to {self.length} tokens, {self.beams} beam{many}',
                f'{self.tokens:,} tokens in {self.seconds:.1f} s, compiling included: '
                f'{self.tokens / self.seconds:,.0f} tokens/s',
            )
        )


@checked
def measure(
    run: Finished, beams: Count = 1, max_length: Count | None = None, examples: Count | None = None
) -> Translations:
    """Translations of the test pairs of up to the longest evaluated length, or of `examples` of them, drawn with a
    fixed seed. A translation has up to `max_length` tokens, by default as many as a target may have."""
    length = run.experiment.eval_lengths[-1]
    pairs, train = (run.task.sentence_pairs(split, longest) for split, longest in (('test', length), ('train', None)))
    if examples and examples < len(pairs):
        pairs = random.Random(0).sample(pairs, examples)
    if not pairs:
        raise UserError(f'no test pair has at most {length} tokens on each side - choose longer lengths')
    clock = time.monotonic()
    made = translate(run, [source for source, _ in pairs], beams=beams, max_length=max_length or length + 1)
    seconds, texts = time.monotonic() - clock, [one.text for one in made]
    references = [target for _, target in pairs]
    found = {'model': texts, **baselines(pairs, train)}
    scores = {name: Score.of(found[name], references) for name in found}
    return Translations(pairs, length, beams, texts, sum(len(one.tokens) for one in made), seconds, scores)


def translate(run: Finished, sources: Sequence[str], **options: Any) -> list[Continuation]:
    """Translations of sources; `options` are those of `Finished.stream`. Sources of similar length are translated
    together."""
    order = sorted(range(len(sources)), key=lambda i: len(run.task.encode(sources[i])))
    made: dict[int, Continuation] = {}
    with parallel.progress(total=len(sources), unit=' sentences', desc='translate') as bar:
        for first in range(0, len(order), BATCH):
            rows = order[first : first + BATCH]
            made |= zip(rows, run.continuations([sources[i] for i in rows], **options), strict=True)
            bar.update(len(rows))
    return [made[i] for i in range(len(sources))]


def baselines(pairs: Sequence[Pair], train: Sequence[Pair]) -> dict[str, list[str]]:
    """Translations without a model, by name: the sources of `pairs`, and the targets of the most similar sources among
    the first `MOST_SOURCES` in `train`."""
    sources, train = [source for source, _ in pairs], train[:MOST_SOURCES]
    similar = most_similar(sources, [source for source, _ in train])
    return {'most similar source': [train[index][1] for index in similar], 'source itself': sources}


def most_similar(texts: Sequence[str], among: Sequence[str]) -> list[int]:
    """Index in `among` of the text with which each text shares most character n-grams, relative to the number that both
    have (Dice coefficient)."""
    grams = [_ngrams(text) for text in among]
    having = collections.defaultdict(list)
    for index, found in enumerate(grams):
        for gram in found:
            having[gram].append(index)
    sizes = np.array([len(found) for found in grams])

    def nearest(text):
        own = _ngrams(text)
        rows = [index for gram in own for index in having.get(gram, ())]
        return int((np.bincount(rows, minlength=len(among)) / (len(own) + sizes)).argmax())

    return [nearest(text) for text in texts]


def _ngrams(text: str) -> set[str]:
    text = f' {text} '
    return {text[i : i + size] for size in NGRAMS for i in range(max(len(text) - size + 1, 1))}
