"""Translations of test sentences, measured with sacrebleu beside two baselines that need no model.

BLEU compares n-grams of words (Papineni et al., 2002), chrF those of characters (Popovic, 2015); both are computed by
sacrebleu (Post, 2018, arXiv:1804.08771), whose signature states every setting. The baselines are the source itself,
which names and placeholders make better than nothing, and the translation of the training source that shares most
character n-grams with it.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mha.machine import parallel
from mha.run.finished import Continuation, Finished

Pair = tuple[str, str]
"""Source and target."""
BATCH = 64
"""Number of sentences that are translated together."""
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
    """Translations without a model, by name: the sources of `pairs`, and the targets of the most similar sources in
    `train`."""
    sources = [source for source, _ in pairs]
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
