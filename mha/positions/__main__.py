"""Catalogue of position schemes on the command line: list them, describe one, draw its heatmap.

python -m mha.positions                                   # all schemes, a line each
python -m mha.positions 'name(argument=value)|name'       # one spec described, and its heatmap as a picture
python -m mha.positions --docs                            # writes docs/schemes.md and its pictures
"""

import shutil
import sys
from pathlib import Path

from mha import cli
from mha.machine import cache
from mha.positions import Dims
from mha.run import workdir
from mha.spec import UserError
from mha.views.catalogue import heatmap, prose
from mha.views.catalogue import schemes as catalogue

sys.argv[0] = 'mha.positions'
flags = cli.flags
OUTPUT = flags.DEFINE_string(
    'output',
    None,
    'The picture, in place of one there may be; default: a new PNG in this directory, named by the spec.',
)
DIM = flags.DEFINE_integer('dim', catalogue.DIMS.dim, 'Width of the model.', lower_bound=1)
HEADS = flags.DEFINE_integer('heads', catalogue.DIMS.heads, 'Number of heads.', lower_bound=1)
HEAD_DIM = flags.DEFINE_integer('head_dim', None, 'Width of a head; default: dim / heads.', lower_bound=1)
LENGTH = flags.DEFINE_integer(
    'length', catalogue.DIMS.max_len, 'Longest sequence, in tokens.', lower_bound=2, upper_bound=2048
)
CAUSAL = flags.DEFINE_bool('causal', False, 'Describe the scheme under a causal mask.')
DOCS = flags.DEFINE_bool('docs', False, 'Write docs/schemes.md and its pictures.')
FOLDER = Path(__file__).parents[2] / 'docs'


def main(text: str = '', *more: str) -> None:
    cache.keep_programs()
    if DOCS.value:
        if len(sys.argv) > 2:
            raise UserError('--docs describes all schemes at the default sizes, and takes nothing else')
        catalogue.write(FOLDER)
        print(FOLDER / 'schemes.md')
        return
    if HEAD_DIM.value is None and DIM.value % HEADS.value:
        raise UserError(f'{HEADS.value} heads do not divide the width {DIM.value} - set --head_dim')
    head_dim = HEAD_DIM.value or DIM.value // HEADS.value
    dims = Dims(DIM.value, HEADS.value, head_dim, LENGTH.value, CAUSAL.value)
    if not text:
        width = shutil.get_terminal_size((prose.WIDTH, 24)).columns
        print(catalogue.table(dims, min(width, prose.WIDTH)))
        return
    if more:
        raise UserError(f'one spec at a time, not {1 + len(more)} - compose schemes with | inside quotes')
    path = cli.path('output', OUTPUT.value or f'{workdir.file_name(text)}.png')
    if path.suffix != '.png':
        raise UserError(f'--output={path}: pictures are PNG - name it {path.with_suffix(".png")}')
    print(catalogue.describe(text, dims))
    picture = heatmap.png(catalogue.look(text, dims).heatmap(), title=text)
    try:
        other = path.exists() and path.read_bytes() != picture
        if other and not OUTPUT.value:
            raise UserError(f'{path} is there already and is another picture - say where to write with --output=...')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    except OSError as error:
        raise UserError(f'cannot write {path}: {error.strerror}') from error
    print(f'\npicture{" replaced" if other else ""}: {path}')


main.takes_arguments = True  # pyright: ignore[reportFunctionMemberAccess]

if __name__ == '__main__':
    cli.run(main)
