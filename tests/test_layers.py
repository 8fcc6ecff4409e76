"""launch -> pipeline -> influence_core, never back; and no TensorFlow."""

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FORBIDDEN = {
  'influence_core': {
    'pipeline',
    'launch',
    'apache_beam',
    'fsspec',
    'gcsfs',
    'tensorflow_datasets',
    'argparse',
    'orbax',
    'tensorflow',
  },
  'pipeline': {'launch', 'argparse', 'tensorflow'},
  'launch': {'tensorflow'},
}


def imported_packages(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name.split('.')[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield (node.module or '').split('.')[0]


@pytest.mark.parametrize('layer', FORBIDDEN)
def test_imports_follow_the_layers(layer):
  files = sorted((ROOT / layer).rglob('*.py'))
  assert files
  for path in files:
    wrong = FORBIDDEN[layer] & set(imported_packages(path))
    assert not wrong, f'{path} imports {wrong}'


def test_pmap_stands_in_one_file():
  users = [
    path.name
    for path in (ROOT / 'influence_core').rglob('*.py')
    if 'jax.pmap' in path.read_text()
  ]
  assert users == ['multi_device.py']


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
