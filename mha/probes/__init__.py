"""Looking inside trained models: what their heads attend to, and what they are for.

    >>> import mha
    >>> run = mha.load('runs/a')
    >>> seen = mha.probes.probe(run, length=40)
    >>> seen.attentions[0].weights().shape      # first layer: [batch, heads, queries, keys]
    >>> mha.probes.head_statistics(run, lengths='20,40')    # entropy, distance, induction, .. of every head

`record` keeps the queries, keys and values of one forward pass; maps are computed from them on demand, as many rows at
a time as one asks for. A model that is not probed computes nothing more.
"""

from mha.probes.importance import ablations, gradient_importance, head_gates, pruning_curve, removable
from mha.probes.recording import Attention, Recording, layers, probe, record
from mha.probes.relations import Link, Relation, Sentence, head_relations, read_conllu, relations_of
from mha.probes.schemes import Encoding, encodings
from mha.probes.similarity import Similarity, head_similarity, similarity_of
from mha.probes.statistics import COLUMNS, Statistics, head_statistics, roles, statistics_at, statistics_of

__all__ = [
    'COLUMNS',
    'Attention',
    'Encoding',
    'Link',
    'Recording',
    'Relation',
    'Sentence',
    'Similarity',
    'Statistics',
    'ablations',
    'encodings',
    'gradient_importance',
    'head_gates',
    'head_relations',
    'head_similarity',
    'head_statistics',
    'layers',
    'probe',
    'pruning_curve',
    'read_conllu',
    'record',
    'relations_of',
    'removable',
    'roles',
    'similarity_of',
    'statistics_at',
    'statistics_of',
]
