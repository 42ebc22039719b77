"""Multi-head attention, position schemes and length extrapolation in JAX. Names for use in notebooks:

mha.positions.make(spec, dims, rngs=rngs)   mha.tasks.make(spec)   mha.masks   mha.cores.names()
mha.attend(q, k, v, position=, mask=)       mha.MultiHeadAttention(...)   mha.Encoder(...)   mha.EncoderDecoder(...)
mha.load('runs/a')                          a finished run: its model, its task, evaluations of its weights
mha.pretrained.load('folder')               BERT, GPT-2, Llama or another pretrained model, as a finished run
mha.probes                                  looking inside: attention maps, heads, what they are for
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mha import cores, positions, pretrained, probes, tasks
    from mha.model.attention import MultiHeadAttention, attend
    from mha.model.encoder import Encoder
    from mha.model.seq2seq import EncoderDecoder
    from mha.nn import masks
    from mha.run.finished import load

__version__ = '0.1.0'
__all__ = [
    'Encoder',
    'EncoderDecoder',
    'MultiHeadAttention',
    'attend',
    'cores',
    'load',
    'masks',
    'positions',
    'pretrained',
    'probes',
    'tasks',
]

_HOMES = {
    'Encoder': 'mha.model.encoder',
    'EncoderDecoder': 'mha.model.seq2seq',
    'MultiHeadAttention': 'mha.model.attention',
    'attend': 'mha.model.attention',
    'load': 'mha.run.finished',
}
_MODULES = {
    'cores': 'mha.cores',
    'masks': 'mha.nn.masks',
    'positions': 'mha.positions',
    'pretrained': 'mha.pretrained',
    'probes': 'mha.probes',
    'tasks': 'mha.tasks',
}


def __getattr__(name: str) -> Any:
    """Imports public names when they are first used, so that reports and error messages need not wait for jax."""
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
