"""Who may import whom: the house's rooms and doors (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {  # a room and, from the ground up, those below it that it may use; ANYONE names those for all
    'mha.spec': set(),
    'mha.arguments': set(),
    'mha.cli': {
        'mha.machine.environment',
        'mha.machine.files',
        'mha.machine.signals',
        'mha.run.versions',
    },  # for scripts alone
    'mha.machine': {'mha.machine'},
    'mha.nn': {'mha.nn'},
    'mha.positions': {'mha.positions.base', 'mha.nn'},
    'mha.normalizers': {'mha.normalizers.base', 'mha.positions.base', 'mha.nn'},
    'mha.mixing': {'mha.mixing.base', 'mha.positions.base', 'mha.nn'},
    'mha.cores': {'mha.cores', 'mha.normalizers', 'mha.mixing', 'mha.nn', 'mha.positions.base'},
    'mha.datasets': {'mha.machine'},
    'mha.tasks': {
        'mha.datasets',
        *(
            f'mha.tasks.{part}'
            for part in (
                'base',
                '_binary',
                '_decimal',
                '_draws',
                '_expressions',
                '_files',
                '_groups',
                '_haystack',
                '_in_context',
                '_labels',
                '_packing',
                '_recall',
                '_scratchpad',
            )
        ),
    },
    'mha.tasks.recognize': {'mha.tasks'},  # it wraps another task
    'mha.model': {'mha.model', 'mha.cores', 'mha.normalizers', 'mha.mixing', 'mha.positions', 'mha.nn'},
    'mha.training': {'mha.training', 'mha.tasks', 'mha.nn', 'mha.machine', 'mha.cores'},
    'mha.run': {'mha'},
    'mha.probes': {
        'mha.probes',
        'mha.machine',
        'mha.pretrained',
        'mha.model',
        'mha.cores',
        'mha.mixing',
        'mha.positions',
        'mha.nn',
        'mha.tasks',
        'mha.training',
        'mha.run',
    },
    'mha.pretrained': {'mha.pretrained', 'mha.model', 'mha.datasets', 'mha.positions', 'mha.machine', 'mha.run'},
    'mha.views': {'mha.views', 'mha.positions', 'mha.normalizers', 'mha.mixing', 'mha.tasks', 'mha.cores', 'mha.nn'},
    'mha.views.pages': {'mha.views.pages'},
    'mha.views.probe': {'mha.views.probe', 'mha.views.pages', 'mha.machine.files'},
    'mha.views.encodings': {'mha.views.report.plots', 'mha.probes', 'mha.machine.files'},
    'mha.views.heads': {'mha.views.report', 'mha.training.metrics', 'mha.probes'},
    'mha.views.report': {
        'mha.views.report',
        'mha.views.pages',
        'mha.machine.files',
        'mha.run.fields',
        'mha.run.manifest',
        'mha.run.population',
        'mha.run.versions',
        'mha.training.metrics',
    },
    # Five scripts are run under the names of the packages that they show.
    'mha.probes.__main__': {
        'mha.cli',
        'mha.machine',
        'mha.probes',
        'mha.run',
        'mha.views.heads',
        'mha.views.report.runs',
        'mha.pretrained',
    },
    'mha.views.catalogue.command': {'mha.views', 'mha.positions', 'mha.tasks', 'mha.machine', 'mha.cli'},
    'mha.positions.__main__': {'mha.views.catalogue.command'},
    'mha.normalizers.__main__': {'mha.views.catalogue.command', 'mha.normalizers'},
    'mha.mixing.__main__': {'mha.views.catalogue.command', 'mha.mixing'},
    'mha.tasks.__main__': {'mha.views.catalogue.command'},
    'configs': {'configs.common'},
}
ANYONE = {'mha.spec', 'mha.arguments'}
FORBIDDEN = {
    'mha': {'ml_collections', 'absl', 'configs', 'train', 'eval', 'sweep', 'compare'},
    'configs': {'jax', 'flax', 'mha', 'numpy'},
    'mha.views.report': {'jax', 'flax'},
    'mha.views.probe': {'jax', 'flax'},
    'mha.datasets': {'jax', 'flax', 'tensorflow'},
}


def modules():
    for path in sorted([*ROOT.glob('mha/**/*.py'), *ROOT.glob('configs/**/*.py')]):
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
            own_plugin = any(within(name, f'mha.{kind}') for kind in ('positions', 'tasks', 'normalizers', 'mixing'))
            if own_plugin and name.count('.') == 2:  # one scheme or task never imports another
                doors -= {room}
            assert any(within(imported, door) for door in doors), f'{name} imports {imported}'
