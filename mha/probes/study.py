"""Heads over many runs: how many a run has, how many it needs, and how alike they are.

    python -m mha.probes runs/heads

A row describes one run at one length (`MEASURES`). Heads are ranked by the importance that their gradients have at the
trained lengths (Michel et al., 2019, arXiv:1905.10650).
"""

import math
from collections.abc import Iterable
from typing import Annotated, Any

from mha.arguments import at_least, checked
from mha.probes.importance import gradient_importance, importance_of, of_run, pruning_curve, ranked, removable
from mha.probes.similarity import head_similarity
from mha.probes.statistics import head_statistics, roles
from mha.run.finished import Finished
from mha.spec import UserError

Rows = list[dict[str, Any]]
MEASURES = {
    'accuracy': 'accuracy per symbol',
    'loss': 'loss, in nats per symbol',
    'removable': 'heads that can go, the least important first, before the accuracy falls by more than 0.01',
    'removable_share': 'the same as a share of all heads',
    'close_pairs': 'pairs of heads of a stack whose maps have a mean divergence of at most 0.05 bits',
    'close_share': 'the same as a share of all pairs',
    'concentration': 'share of the total importance in the most important quarter of the heads, if there are four',
    'with_role': 'heads with a role, such as one that attends to the token before',
}
"""Measures of a run at one length. NaN where there is nothing to measure, such as pairs of a single head."""
SIMILARITY_EXAMPLES = 16
"""Largest number of examples whose maps are compared: all pairs of heads are."""


@checked
def study(
    run: Finished, *, lengths: str | Iterable[int] | None = None, examples: Annotated[int, at_least(1)] = 64
) -> Rows:
    """Row per length, with the number of all heads, `heads`, and the columns of `MEASURES`. Lengths are by default the
    longest of training and the longest of the evaluation."""
    if not of_run(run):
        raise UserError('the model has no heads left to study')
    lengths = run.experiment.ends if lengths is None else lengths
    importance = gradient_importance(run, examples=examples)
    curve = pruning_curve(run, order=ranked(importance), lengths=lengths, examples=examples)
    statistics = head_statistics(run, lengths=lengths, examples=examples)
    concentration = _concentration(importance)
    found: Rows = []
    for whole, can_go in zip(curve, removable(curve), strict=False):  # the curve begins with the whole model
        length, heads, gone = whole['length'], whole['heads'], can_go['removable']
        close, pairs = _redundancy(run, length, min(examples, SIMILARITY_EXAMPLES))
        found.append(
            {
                'length': length,
                'heads': heads,
                'accuracy': whole['accuracy'],
                'loss': whole['loss'],
                'removable': gone,
                'removable_share': gone / heads if heads else math.nan,
                'close_pairs': close,
                'close_share': close / pairs if pairs else math.nan,
                'concentration': concentration,
                'with_role': sum(bool(roles(row)) for row in statistics if row['length'] == length),
            }
        )
    return found


def _concentration(importance: Rows) -> float:
    """Share of the total importance in the top quarter of the heads; NaN for fewer than four heads."""
    totals = sorted(importance_of(importance).values(), reverse=True)
    return sum(totals[: math.ceil(len(totals) / 4)]) / sum(totals) if len(totals) >= 4 and any(totals) else math.nan


def _redundancy(run: Finished, length: int, examples: int) -> tuple[int, int]:
    """Numbers of close pairs of heads, and of all pairs of heads of the same stack."""
    tables = head_similarity(run, length=length, examples=examples)
    close = sum(len(each.redundancy()['pairs']) for each in tables)
    return close, sum(math.comb(len(each.heads), 2) for each in tables)
