"""Commands `python -m mha.positions`, and the same with `normalizers`, `mixing` and `tasks`: a list, a description of
one spec, or the page in docs/."""

import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path

from mha import cli
from mha.machine import cache
from mha.positions import Dims
from mha.spec import UserError
from mha.views.catalogue import heatmap, prose, variants
from mha.views.catalogue import schemes as scheme_catalogue
from mha.views.catalogue import tasks as task_catalogue

flags = cli.flags
flags.disclaim_key_flags()  # the flags belong to the module that is run, so that its --help shows them
ROOT = Path(__file__).parents[3]


def positions() -> None:
    """Lists position schemes, describes and draws one, or writes docs/schemes.md."""
    sys.argv[0] = 'mha.positions'
    default = scheme_catalogue.DIMS
    width = flags.DEFINE_integer('dim', default.dim, 'Width of the model.', lower_bound=1)
    heads = flags.DEFINE_integer('heads', default.heads, 'Number of heads.', lower_bound=1)
    head_width = flags.DEFINE_integer('head_dim', None, 'Width of a head; default: dim / heads.', lower_bound=1)
    length = flags.DEFINE_integer(
        'length', default.max_len, 'Longest sequence, in tokens.', lower_bound=2, upper_bound=2048
    )
    causal = flags.DEFINE_bool('causal', False, 'Describe the scheme under a causal mask.')
    picture = flags.DEFINE_string('picture', None, 'PNG file to draw the scheme into.')

    def dims() -> Dims:
        if head_width.value is None and width.value % heads.value:
            raise UserError(f'{heads.value} heads do not divide the width {width.value} - set --head_dim')
        head_dim = head_width.value or width.value // heads.value
        return Dims(width.value, heads.value, head_dim, length.value, causal.value)

    def show_all(columns: int) -> None:
        if picture.value:
            raise UserError(f'--picture={picture.value} is for one scheme - name one, such as rope')
        print(scheme_catalogue.table(dims(), columns))

    def show(text: str) -> None:
        path = cli.path('picture', picture.value) if picture.value else None
        if path and path.suffix != '.png':
            raise UserError(f'--picture={path}: pictures are PNG - name it {path.with_suffix(".png")}')
        print(scheme_catalogue.describe(text, dims()))
        if path:
            _write(path, heatmap.png(scheme_catalogue.look(text, dims()).heatmap(), title=text))
            print(f'\npicture: {path}')

    _run('schemes.md', show_all, show, scheme_catalogue.write)


def of_variants(package: types.ModuleType) -> None:
    """Lists normalizers or mixings of heads, or describes one. Their page is that of the schemes."""
    sys.argv[0] = package.__name__

    def show_all(columns: int) -> None:
        print(variants.table(package, columns))

    def show(text: str) -> None:
        print(variants.describe(package, text))

    _run('schemes.md', show_all, show, scheme_catalogue.write)


def tasks() -> None:
    """Lists tasks, describes one with samples, or writes docs/tasks.md."""
    sys.argv[0] = 'mha.tasks'
    length = flags.DEFINE_integer('length', 12, 'Length of the samples.', lower_bound=1, upper_bound=2048)
    causal = flags.DEFINE_bool('causal', False, 'Show the task in the form for causal models.')
    samples = flags.DEFINE_integer('samples', 5, 'Number of samples.', lower_bound=1, upper_bound=1000)
    seed = flags.DEFINE_integer('seed', 0, 'Seed of the samples.', lower_bound=0, upper_bound=2**32 - 1)

    def show_all(columns: int) -> None:
        if len(sys.argv) > 1:
            raise UserError(f'{sys.argv[1]} is for samples of a task - name one, such as parity')
        print(task_catalogue.table(*task_catalogue.entries(), columns))

    def show(text: str) -> None:
        entry = task_catalogue.look(text, causal.value)
        print(task_catalogue.describe(entry, length.value, samples.value, seed.value))

    _run('tasks.md', show_all, show, task_catalogue.write)


def _run(
    page: str,
    show_all: Callable[[int], None],
    show: Callable[[str], None],
    write: Callable[[Path], None],
) -> None:
    """Runs a command. `show_all` takes the width of the terminal, `show` a spec, `write` the folder of the page."""
    docs = flags.DEFINE_bool('docs', False, f'Write docs/{page}.')

    def main(text: str = '', *more: str) -> None:
        cache.keep_programs()
        if more:
            raise UserError(f'one spec at a time, not {1 + len(more)} - quotes keep one together')
        if docs.value:
            _write_page(page, write)
        elif text:
            show(text)
        else:
            show_all(shutil.get_terminal_size((prose.WIDTH, 24)).columns)

    main.takes_arguments = True  # pyright: ignore[reportFunctionMemberAccess]
    cli.run(main)


def _write_page(page: str, write: Callable[[Path], None]) -> None:
    if len(sys.argv) > 2:
        raise UserError('--docs writes the page for default sizes and takes nothing else')
    if not (ROOT / 'pyproject.toml').exists():
        raise UserError(f'--docs writes docs/{page} of a checkout, and this package is installed')
    write(ROOT / 'docs')
    print(ROOT / 'docs' / page)


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f'cannot write {path}: {error.strerror}') from error
