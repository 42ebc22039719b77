"""Who may import whom: the house's rooms and doors (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ANYONE = {'mha.spec', 'mha.cache'}  # what a person types, and where things are kept
MAY_IMPORT = {
    'mha.spec': set(),
    'mha.cache': set(),
    'mha.cli': set(),
    'mha.masks': set(),
    'mha.prng': set(),
    'mha.dropout': {'mha.prng'},
    'mha.products': set(),
    'mha.buckets': set(),
    'mha.intervals': set(),
    'mha.optim': set(),
    'mha.curricula': set(),
    'mha.checkpoint': set(),
    'mha.parallel': set(),
    'mha.metrics': {'mha.parallel'},
    'mha.workdir': {'mha.parallel'},
    'mha.positions': {'mha.positions.base', 'mha.products', 'mha.prng'},
    'mha.cores': {'mha.cores', 'mha.masks', 'mha.dropout', 'mha.products', 'mha.positions.base'},
    'mha.attention': {'mha.cores', 'mha.masks', 'mha.products', 'mha.positions.base'},
    'mha.encoder': {'mha.attention', 'mha.positions', 'mha.masks', 'mha.dropout', 'mha.products'},
    'mha.heatmap': {'mha.positions', 'mha.masks', 'mha.cores'},
    'mha.prose': set(),
    'mha.catalogue': {'mha.positions', 'mha.heatmap', 'mha.prose'},
    'mha.positions.__main__': {'mha.positions', 'mha.catalogue', 'mha.heatmap', 'mha.prose', 'mha.cli', 'mha.workdir'},
    'mha.task_catalogue': {'mha.tasks', 'mha.prose'},
    'mha.tasks.__main__': {'mha.tasks', 'mha.task_catalogue', 'mha.prose', 'mha.cli'},
    'mha.datasets': set(),
    'mha.tasks': {
        'mha.datasets',
        *(f'mha.tasks.{part}' for part in ('base', '_binary', '_expressions', '_files', '_scratchpad')),
    },
    'mha.population': set(),
    'mha.training': {'mha.curricula', 'mha.prng', 'mha.tasks'},
    'mha.evaluation': {'mha.training', 'mha.tasks', 'mha.buckets', 'mha.cores', 'mha.parallel', 'mha.intervals'},
    'mha.experiment': {'mha'},
    'mha.report': {'mha.report', 'mha.population', 'mha.intervals'},
    'configs': {'configs.common'},
}
FORBIDDEN = {
    'mha': {'ml_collections', 'absl', 'configs', 'train', 'eval', 'sweep', 'compare'},
    'configs': {'jax', 'flax', 'mha', 'numpy'},
    'mha.report': {'jax', 'flax'},
    'mha.datasets': {'jax', 'flax', 'tensorflow'},
}


def modules():
    for path in sorted([*ROOT.glob('mha/**/*.py'), *ROOT.glob('configs/*.py')]):
        parts = path.relative_to(ROOT).with_suffix('').parts
        yield '.'.join(parts[:-1] if parts[-1] == '__init__' else parts), path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ''
            yield from (
                f'{package}.{alias.name}'
                if (ROOT / package.replace('.', '/') / f'{alias.name}.py').exists()
                or (ROOT / package.replace('.', '/') / alias.name).is_dir()
                else package
                for alias in node.names
            )


def within(name, package):
    return name == package or name.startswith(f'{package}.')


@pytest.mark.parametrize(('name', 'path'), [pytest.param(*module, id=module[0]) for module in modules()])
def test_imports(name, path):
    room = max((room for room in MAY_IMPORT if within(name, room)), key=len, default=None)
    if name in ('mha', 'configs'):
        return
    assert room, f'{name}: say in MAY_IMPORT what it may import'
    for imported in imports(path):
        for place, names in FORBIDDEN.items():
            allowed = (name, imported.split('.')[0]) == ('mha.cli', 'absl')
            assert not within(name, place) or allowed or imported.split('.')[0] not in names, (
                f'{name} imports {imported}'
            )
        if within(imported, 'mha') or within(imported, 'configs'):
            doors = MAY_IMPORT[room] | ANYONE | {room}
            own_plugin = within(name, 'mha.positions') or within(name, 'mha.tasks')
            if own_plugin and name.count('.') == 2:  # one scheme or task never imports another
                doors -= {room}
            assert any(within(imported, door) for door in doors), f'{name} imports {imported}'
