"""Catalogue of what changes attention beside positions: normalizers, mixings of heads, and names that are not here."""

import inspect
import types
from typing import Any

from flax import nnx

from mha import mixing, normalizers, positions, spec
from mha.mixing import Mixing
from mha.normalizers import Normalizer
from mha.positions import Dims
from mha.views.catalogue import prose
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
* `model.core='linear'`, `'delta'`: other functions of queries and keys, without weights.

Refused, with a line that says so: a scheme that replaces the softmax together with a normalizer; `linear` and `delta`
with any of these but gates and `differential`; tiled cores with what works on whole rows; `differential` with `shaw`,
which adds to values. All else runs, tens of thousands of combinations, of which a test draws samples
(`tests/test_grid.py`).

`python -m mha.normalizers 'SPEC'` and `python -m mha.mixing 'SPEC'` describe one in the terminal.
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
    parts = [_introduction()]
    for package in (normalizers, mixing):
        parts.append(f'## {_title(package)}')
        rows = [[f'[{name}](#{_anchor(name)})', cores, markdown(text)] for cores, (name,), text in _rows(package)]
        parts.append(grid([['name', 'cores', 'summary'], ['---'] * 3, *rows]))
        for name in package.names():
            parts += section(name, _kind(package, name), GIVEN)
    rows = [[markdown(name), markdown(reason)] for name, reason in ELSEWHERE.items()]
    parts += ['## Not here, and why', grid([['name', 'reason'], ['---', '---'], *rows])]
    return '\n\n'.join(parts) + '\n'


def _anchor(name: str) -> str:
    """Name of a section in links: the second of its name on the page if there is a scheme of this name."""
    return f'{name}-1' if name in positions.names() else name


def _introduction() -> str:
    """Introduction with papers as links. Headings and list items may have links of their own."""
    parts = inspect.cleandoc(INTRODUCTION).split('\n\n')
    return '\n\n'.join(prose.linked(part) if part.startswith(('#', '*')) else markdown(part) for part in parts)


def table(package: types.ModuleType, width: int = prose.WIDTH) -> str:
    """Table of all normalizers or mixings for a terminal, one line each, below the cores that run them."""
    rows = sorted(_rows(package), key=lambda row: (row[0] != 'all', -len(row[0])))
    return prose.table([_title(package)], [(f'cores: {cores}', cells, text) for cores, cells, text in rows], (), width)


def describe(package: types.ModuleType, text: str) -> str:
    """Description of one spec. Raises `UserError`."""
    call = spec.parse(text)[0]
    kind = _kind(package, call.name)
    dims = Dims(dim=64, heads=8, head_dim=8, max_len=48, causal=True)
    more = (0,) if package is mixing else ()
    nnx.eval_shape(lambda: package.make(text, dims, *more, rngs=nnx.Rngs(0)))
    lines = [*prose.described(call, kind, GIVEN), '', *prose.listed({'cores': _cores(kind)})]
    return '\n'.join([text, *prose.indented(lines)])


def _title(package: types.ModuleType) -> str:
    return {normalizers: 'Normalizers', mixing: 'Mixing of heads'}[package]


def _kind(package: types.ModuleType, name: str) -> Any:
    base, what = {normalizers: (Normalizer, 'normalizer'), mixing: (Mixing, mixing.WHAT)}[package]
    return spec.load(package, name, base, what)


def _rows(package: types.ModuleType) -> list[tuple[str, list[str], str]]:
    """Cores, name and summary of all plug-ins of a package."""
    kinds = {name: _kind(package, name) for name in package.names()}
    return [(_cores(kind), [name], prose.paragraphs(kind)[0]) for name, kind in kinds.items()]


def _cores(kind: type[Normalizer] | type[Mixing]) -> str:
    if issubclass(kind, Normalizer):
        return {'softmax': 'dense, blockwise, flash', 'pointwise': 'dense, blockwise', 'rows': 'dense'}[kind.form]
    return 'dense' if kind.whole_rows else 'all'
