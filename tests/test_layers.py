"""The house: which folder may import which, and what layers know nothing of.

launch -> pipeline -> influence_core, never back; inside a layer, a folder
imports only folders of lower floors, so that there are no cycles.
"""

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# Folders from the ground up; those of one floor do not know each other. Modules
# beside the folders are the ground of the core, and the roof elsewhere.
FLOORS = {
  'influence_core': (
    '.',
    'devices',
    'curvature projection eigenpairs scores',
    'subspaces',
    'baselines',
  ),
  'pipeline': (
    'storage',
    'corpora index',
    'tasks',
    'bases',
    'projection search',
    'upkeep evaluation beam',
    '.',
  ),
  'launch': (
    'output example_tasks',
    'pages',
    'flags',
    'running',
    'cloud schedule reproduce explorer',
    'commands tutorials',
    '.',
  ),
}
LAYERS = tuple(FLOORS)
# What a layer must not know, besides the layers above it.
FOREIGN = {
  'influence_core': {
    'apache_beam',
    'argparse',
    'fsspec',
    'gcsfs',
    'orbax',
    'tensorflow',
    'tensorflow_datasets',
  },
  'pipeline': {'argparse', 'tensorflow'},
  'launch': {'tensorflow'},
}


def imports(code):
  """Dotted names of all that some code imports, wherever in it."""
  for node in ast.walk(ast.parse(code)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def floor_of(layer, dotted):
  """(floor, folder) of what is imported, or of a file as a dotted name."""
  first, *more = dotted.split('.')[1:]
  folder = first if more and (ROOT / layer / first).is_dir() else '.'
  [floor] = [n for n, x in enumerate(FLOORS[layer]) if folder in x.split()]
  return floor, folder


def files_of(layer):
  files = sorted((ROOT / layer).rglob('*.py'))
  assert files
  return files


@pytest.mark.parametrize('layer', LAYERS)
def test_layers_are_never_imported_backwards(layer):
  forbidden = FOREIGN[layer] | set(LAYERS[LAYERS.index(layer) + 1 :])
  for path in files_of(layer):
    wrong = forbidden & {
      name.split('.')[0] for name in imports(path.read_text())
    }
    assert not wrong, f'{path} imports {wrong}'


@pytest.mark.parametrize('layer', LAYERS)
def test_folders_import_lower_floors_alone(layer):
  for path in files_of(layer):
    own_name = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    floor, folder = floor_of(layer, own_name)
    for name in imports(path.read_text()):
      if name.split('.')[0] == layer:
        other_floor, other = floor_of(layer, name)
        assert other == folder or other_floor < floor, f'{path} imports {name}'


@pytest.mark.parametrize('layer', LAYERS)
def test_every_folder_has_a_floor_and_says_what_it_holds(layer):
  named = {x for floor in FLOORS[layer] for x in floor.split()} - {'.'}
  found = {path.parent.name for path in (ROOT / layer).glob('*/__init__.py')}
  assert found == named
  for name in named:
    text = (ROOT / layer / name / '__init__.py').read_text()
    [sentence] = ast.parse(text).body  # And no imports.
    assert ast.get_docstring(ast.parse(text)).endswith('.')
    assert isinstance(sentence, ast.Expr)


def test_no_command_imports_another():
  for path in (ROOT / 'launch' / 'commands').glob('*.py'):
    for name in imports(path.read_text()):
      assert not name.startswith('launch.commands'), f'{path} imports {name}'


def test_beam_is_known_in_one_folder_of_the_pipeline():
  users = {
    path.parent.name
    for path in files_of('pipeline')
    if any(
      name.split('.')[0] == 'apache_beam' for name in imports(path.read_text())
    )
  }
  assert users == {'beam'}


def test_pmap_stands_in_one_file():
  users = [
    path.name
    for path in (ROOT / 'influence_core').rglob('*.py')
    if 'jax.pmap' in path.read_text()
  ]
  assert users == ['multi_device.py']


@pytest.mark.slow
def test_tensorflow_is_never_imported(task_flags, index):
  """Nor needed: a query touches every layer, TFDS, Orbax and Beam."""
  arguments = [
    'topk',
    *task_flags,
    *('--index', str(index), '--query_split', 'test', '--json'),
  ]
  program = (
    'import sys\n'
    'import pipeline.beam.project_corpus, launch.commands.demo\n'
    'from launch import cli\n'
    f'assert cli.main({arguments!r}) == 0\n'
    "assert 'apache_beam' in sys.modules\n"
    "assert 'tensorflow' not in sys.modules\n"
  )
  subprocess.run([sys.executable, '-c', program], cwd=ROOT, check=True)
