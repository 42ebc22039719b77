"""Catalogue of what changes attention beside positions: normalizers, mixings of heads, and names that are not here."""

import inspect

from mha import mixing, normalizers, spec
from mha.mixing import Mixing
from mha.normalizers import Normalizer
from mha.views.catalogue.prose import grid, markdown, section

GIVEN = ('dims', 'layer', 'rngs')
"""Parameters that no spec sets."""
INTRODUCTION = """\
# Attention variants

They compose with every scheme above, and with each other:

* `model.normalizer`: what turns the logits of a query into the weights of its keys, a file of `mha/normalizers`.
* `model.mixing`: what mixes maps of attention, a file of `mha/mixing`.
* `model.gate`, `'head'` or `'channel'`: the output of each head or channel is multiplied by sigmoid(x W), where x is
  the input of the layer. Qiu et al. (2025, arXiv:2505.06708).
* `model.softcap`: logits z become c tanh(z / c), after all terms and before the mask, as in Gemma 2 (Gemma Team, 2024,
  arXiv:2408.00118). Keys that a scheme itself hides stay hidden.
* `model.qk_norm`, `model.kv_heads`: normalised queries and keys (arXiv:2010.04245), fewer heads of keys and values
  (arXiv:2305.13245).
* `model.pattern`: which keys a head may see, a mask of `mha/nn/masks.py`; `local(64)` and `hard_alibi` differ between
  heads. The scheme [heads](#heads) gives positions to some heads only.
* `model.core='linear'`: another function of queries and keys, without weights.

Refused, with a line that says so: a scheme that replaces the softmax together with a normalizer; `linear` with any of
these but gates; tiled cores with what works on whole rows; `differential` with `shaw`, which adds to values.
"""
ELSEWHERE = {
    'Multi-head latent attention (MLA), tensor product attention (TPA)': 'other projections, not positions; not built',
    'selective attention (2410.02703)': 'sums logits of one head for all others; not built',
    'NSA, MoBA, DSA': 'choose keys by content, and masks here do not depend on it',
    'MoH, SwitchHead': 'choose heads per token; not built',
    'BiPE (2401.16421)': 'needs the segments of a text as part of the data; not built',
    'HoPE (2410.21216)': 'covered by `prope`: choose p so that only wavelengths below the trained length turn',
    'hyperbolic HoPE (2509.05218), 3D-RPE, wavelets (2502.02004), MEP, HARoPE, APE (2601.06113)': 'not verified',
    'TRA (2503.23174)': 'the exact formula was not found',
    'TAPE (2501.00712)': 'a second stream of position states through all layers, not a hook of one',
    'SeqPE (2506.13277)': 'published code is for images',
    'CARoPE (2507.23083)': 'near `selective_rope`; its transform could not be verified',
    'GRAPE-AP, non-commuting GRAPE-M (2512.07805)': 'not built; `grape`, `rope(learned=..)` and '
    '`selective_rope(scalar=True)` are the other forms',
    'LieRE, ComRoPE, STRING': 'in one dimension equal to rope with learned frequencies in a learned basis',
    'NoPE with a search per head (HeadScale, 2404.12224)': '`scale` takes its result, one number per head',
    'CREMA, E2-RPE': 'no code or paper found',
}
"""Names of the literature that are not here, and why."""


def page() -> str:
    """Part of docs/schemes.md on variants."""
    parts = [markdown_lists(INTRODUCTION)]
    for title, package, base in (('Normalizers', normalizers, Normalizer), ('Mixing of heads', mixing, Mixing)):
        parts.append(f'## {title}')
        for name in package.names():
            kind = spec.load(package, name, base, title)
            parts += [*section(name, kind, GIVEN), f'Cores: {_cores(kind)}.']
    rows = [[markdown(name), markdown(reason)] for name, reason in ELSEWHERE.items()]
    parts += ['## Not here, and why', grid([['name', 'reason'], ['---', '---'], *rows])]
    return '\n\n'.join(parts) + '\n'


def markdown_lists(text: str) -> str:
    """Markdown with papers as links."""
    lines = inspect.cleandoc(text).split('\n')
    return '\n'.join(line if line.startswith(('#', '*')) else markdown(line) for line in lines)


def _cores(kind: type[Normalizer] | type[Mixing]) -> str:
    if issubclass(kind, Normalizer):
        return {'softmax': 'dense, blockwise, flash', 'pointwise': 'dense, blockwise', 'rows': 'dense'}[kind.form]
    return 'dense' if kind.whole_rows else 'dense, blockwise, flash'
