"""Catalogue of position schemes, made from their code: in the terminal, and as the page docs/schemes.md."""

import bisect
import dataclasses
import math
import re
from pathlib import Path

from flax import nnx
from tqdm import tqdm

from mha import positions, spec
from mha.positions import Chain, Dims, Position
from mha.spec import Call
from mha.views.catalogue import heatmap, prose, variants
from mha.views.catalogue.heatmap import Heatmap
from mha.views.catalogue.prose import WIDTH, described, either, grid, indented, listed, markdown, paragraphs, section

DIMS = Dims(dim=64, heads=8, head_dim=8, max_len=48)
"""Default sizes of the encoder, and the length of sequences in pictures."""
GIVEN = ('dims', 'inner', 'rngs')
"""Parameters of a scheme that no spec sets."""
LONGEST = 2**20
"""Number of tokens from which on the length of sequences counts as unlimited."""

NOTHING = 'No positions'
GROUPS = {
    'place': 'Coordinates',
    'remap': 'Coordinates',
    'embed': 'Added to the embeddings',
    'qk': 'Queries and keys, turned or scaled',
    'bias': 'Biases: logits from positions',
    'content': 'Logits from content and offset',
    'product': 'Products of whole rows',
    'rows': 'Logits of whole rows',
    'weights': 'In place of the softmax',
}
"""Title of the group of a scheme, by the last of its hooks."""


# --- Facts -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Entry:
    """Spec of a scheme that can be built, and its properties."""

    text: str
    scheme: Position
    """Scheme whose parameters are shapes without values."""
    dims: Dims
    directions: str

    @property
    def calls(self) -> list[Call]:
        return spec.parse(self.text)

    @property
    def hooks(self) -> list[str]:
        return heatmap.hooks(self.scheme)

    @property
    def group(self) -> str:
        return next((GROUPS[hook] for hook in reversed(self.hooks) if hook in GROUPS), NOTHING)

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters by name."""
        flat = nnx.to_flat_state(nnx.state(self.scheme, nnx.Param))
        return {'.'.join(map(str, path)): leaf.shape for path, leaf in flat}

    @property
    def count(self) -> int:
        return sum(math.prod(shape) for shape in self.parameters.values())

    @property
    def directed(self) -> str:
        """Whether the scheme tells left from right by itself; '-' for causal-only schemes, where the mask does."""
        return '-' if self.directions == 'causal' else 'yes' if self.scheme.directed else 'no'

    @property
    def cores(self) -> str:
        return 'dense' if self.scheme.whole_rows else 'any'

    @property
    def longest(self) -> str:
        """Longest sequence in tokens, as text."""

        def refuses(length):
            try:
                self.scheme.extent(length)
            except ValueError:
                return True
            return False

        tokens, length = 'any', self.dims.max_len
        if refuses(LONGEST):
            tokens = f'{bisect.bisect_left(range(1, LONGEST), True, key=refuses):,} tokens'
        met = self.scheme.extent(length)
        return tokens if met == length else f'{tokens}; {length} stand on up to {met:,} coordinates'

    def facts(self) -> dict[str, str]:
        shapes = ', '.join(f'{name} [{", ".join(map(str, shape))}]' for name, shape in self.parameters.items())
        return {
            'hooks': ', '.join(self.hooks) or '-',
            'parameters': f'{self.count:,}: {shapes}' if shapes else '0',
            'directions': self.directions,
            'directed': self.directed,
            'cores': self.cores,
            'length': self.longest,
        }

    def heatmap(self) -> Heatmap:
        """Heatmap: bidirectional if the scheme supports that and the picture shows structure, otherwise causal."""
        drawn = heatmap.compute(self.text, self.dims)
        if not drawn.flat or self.directions != 'both':
            return drawn
        causal = heatmap.compute(self.text, dataclasses.replace(self.dims, causal=True))
        return drawn if causal.flat else causal


def look(text: str, dims: Dims = DIMS) -> Entry:
    """Entry of a spec, built for `dims` or, if that is impossible, for the other direction. Raises `UserError`."""

    def build(causal):
        sizes = dataclasses.replace(dims, causal=causal)
        return nnx.eval_shape(lambda: positions.make(text, sizes, rngs=nnx.Rngs(0)))

    scheme, causal, directions = either(build, dims.causal)
    return Entry(text, scheme, dataclasses.replace(dims, causal=causal), directions)


def kind_of(call: Call) -> type[Position]:
    """Class of the scheme that a call names."""
    return spec.load(positions, call.name, Position, 'position scheme')


# --- In the terminal -------------------------------------------------------------------------------------------------


def table(dims: Dims = DIMS, width: int = WIDTH) -> str:
    """Table of all schemes, one line each."""
    rows = []
    for name, entry in _entries(dims):
        title = re.sub(r',? arXiv:[\d.]+(?=[;)])', '', paragraphs(kind_of(entry.calls[0]))[0])
        rows.append((entry.group, _cells(name, entry), title))
    _, broken = spec.loadable(positions.names(), positions.example)
    return '\n'.join([prose.table(HEADER, rows, RIGHT, width), *broken])


def _entries(dims: Dims = DIMS) -> list[tuple[str, Entry]]:
    """Entries of all schemes that load, by name, in the order of the groups."""
    order = [NOTHING, *dict.fromkeys(GROUPS.values())]
    examples, _ = spec.loadable(positions.names(), positions.example)
    entries = [(name, look(text, dims)) for name, text in examples.items()]
    return sorted(entries, key=lambda item: order.index(item[1].group))


HEADER, RIGHT = ['scheme', 'hooks', 'parameters', 'directions', 'directed', 'cores'], (2,)


def _cells(name: str, entry: Entry) -> list[str]:
    return [name, ', '.join(entry.hooks), f'{entry.count:,}', entry.directions, entry.directed, entry.cores]


def describe(text: str, dims: Dims = DIMS) -> str:
    """Full description of one spec: every part, then the whole."""
    entry = look(text, dims)
    parts = list(entry.scheme.parts) if isinstance(entry.scheme, Chain) else [entry.scheme]
    blocks = []
    for index, call in enumerate(entry.calls):
        block = ['', *described(call, kind_of(call), GIVEN)]
        if len(entry.calls) > 1 and index < len(parts):
            facts = dataclasses.replace(entry, scheme=parts[index]).facts()
            block += ['', *listed({key: facts[key] for key in ('hooks', 'parameters')})]
        blocks.append('\n'.join([str(call), *indented(block)]))
    facts = entry.facts() | ({'parameters': f'{entry.count:,}'} if len(entry.calls) > 1 else {})
    whole = [f'in all, at {_sizes(entry.dims)}', *indented(listed(facts))]
    return '\n\n'.join([*blocks, '\n'.join(whole)])


def _sizes(dims: Dims) -> str:
    causal = ', causal' * dims.causal
    return f'width {dims.dim}, {dims.heads} heads of {dims.head_dim}, {dims.max_len} tokens{causal}'


# --- The page --------------------------------------------------------------------------------------------------------

INTRODUCTION = f"""\
# Position schemes

Made from the code by `make docs`; a test compares the two. Every scheme is a file of `mha/positions`.
[Attention variants](#attention-variants) and [what is not here](#not-here-and-why) follow the schemes.
`python -m mha.positions` prints the table below. `python -m mha.positions 'SPEC'` describes any spec, with arguments
and compositions; `--picture=FILE.png` draws it.

* **hooks**: where the scheme enters the Transformer ([the protocol](architecture.md#the-position-protocol)).
  `place` stands for random draws that coordinates cannot express.
* **parameters**: their number at the encoder's default sizes ({_sizes(DIMS)}). All layers share them unless
  `position_per_layer`.
* **directions**: bidirectional and causal attention (both), or causal attention only.
* **directed**: whether a bidirectional encoder with this scheme can tell left from right. A causal mask always
  does.
* **cores** that support the scheme: any that computes softmax attention, or only `dense`, if the scheme needs whole
  rows of logits.
* **length**: the longest sequence that the scheme supports.

**Pictures.** The input is one random token, repeated {DIMS.max_len} times. Queries equal keys and are scaled so
that every logit is 1 without a scheme; all structure is therefore due to the scheme. A cell is the *logit* of query
i and key j, averaged over heads. For schemes that replace the softmax, it is the attention weight divided by the
largest of its row (*A / max*). For schemes that only change coordinates, it is the offset *D* = p_i - p_j in
training. Parameters have their initial values. If these show no structure, random numbers of standard deviation
{heatmap.MOVE} are added (*parameters moved*). Masked cells are white.
"""


def page() -> str:
    """Text of docs/schemes.md, without its pictures."""
    rows = []
    for name, entry in _entries():
        kind = kind_of(entry.calls[0])
        text = section(name, kind, GIVEN)
        if entry.text != name:
            text.append(f'Built and drawn as `{entry.text}`:')
        facts = entry.facts()
        text.append(grid([list(facts), ['---'] * len(facts), [markdown(fact) for fact in facts.values()]]))
        text.append(f'<img src="schemes/{name}.png" width="320" alt="{name}">')
        rows.append((entry.group, _cells(name, entry), paragraphs(kind)[0], text))
    return prose.page(INTRODUCTION, HEADER, rows, RIGHT) + '\n' + variants.page()


def picture(name: str) -> bytes:
    """Picture of a scheme as PNG."""
    return heatmap.png(look(positions.example(name)).heatmap())


def write(folder: Path) -> None:
    """Writes the page and its pictures. A picture that would look the same is not rewritten."""
    text = page()
    (folder / 'schemes').mkdir(parents=True, exist_ok=True)
    wanted = {folder / 'schemes' / f'{name}.png': name for name in positions.names()}
    for path in (folder / 'schemes').iterdir():
        if path not in wanted:
            path.unlink()
    for path, name in tqdm(wanted.items(), unit=' pictures', desc='draw'):
        drawn = picture(name)
        if not path.exists() or heatmap.distance(path.read_bytes(), drawn) > heatmap.SAME:
            path.write_bytes(drawn)
    (folder / 'schemes.md').write_text(text, encoding='utf-8')
