"""Looking inside trained models: what their heads attend to, and what they are for.

    >>> import mha
    >>> run = mha.load('runs/a')
    >>> seen = mha.probes.probe(run, length=40)
    >>> seen.attentions[0].weights().shape      # first layer: [batch, heads, queries, keys]

`record` keeps the queries, keys and values of one forward pass; maps are computed from them on demand, as many rows at
a time as one asks for. A model that is not probed computes nothing more.
"""

from mha.probes.importance import ablations, gradient_importance, head_gates, pruning_curve, removable
from mha.probes.recording import Attention, Recording, layers, probe, record

__all__ = [
    'Attention',
    'Recording',
    'ablations',
    'gradient_importance',
    'head_gates',
    'layers',
    'probe',
    'pruning_curve',
    'record',
    'removable',
]
