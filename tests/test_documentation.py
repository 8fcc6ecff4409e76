"""What users read: links lead somewhere, commands can be typed, code runs."""

import logging
import re
import tomllib

import griffe
import pytest

from launch.flags import command_table, parser as flags
from launch.schedule import reindex_config
from tests.kit import documentation
from tests.kit.devices import ROOT

PAGES = documentation.PAGES
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def anchors(page):
  """What headings can be linked to, as GitHub names them."""
  headings = re.findall(r'^#+ (.*)$', page.read_text(), re.MULTILINE)
  return {
    re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
    for heading in headings
  }


@pytest.mark.parametrize('page', PAGES, ids=IDS)
def test_links_lead_somewhere(page):
  links = re.findall(r'\]\((?!http)([^)\s]+)\)', page.read_text())
  for link in links:
    path, _, anchor = link.partition('#')
    target = (page.parent / path).resolve() if path else page
    assert target.exists(), link
    if anchor:
      assert anchor in anchors(target), link


def test_every_command_can_be_typed():
  typed = list(documentation.commands())
  assert len(typed) > 30
  for words in typed:
    if '--config' in words and words[0] != 'reindex':
      continue  # Its file is read where it is tested.
    parsed, _ = flags.parse(words)
    assert ' '.join(words).startswith(parsed.command)


def test_every_command_is_explained():
  text = documentation.text()
  for name in command_table.COMMANDS:
    assert f'influence {name}' in text or f'`{name}' in text, name


def test_the_configuration_can_be_read(tmp_path):
  flags_of_commands, block = documentation.blocks('toml')
  (tmp_path / 'index.toml').write_text(flags_of_commands)
  config = ['--config', str(tmp_path / 'index.toml')]
  assert flags.parse(['topk', *config])[1]['request'].k == 20
  assert flags.parse(['fit-basis', *config, '--task', 'a:b'])
  path = tmp_path / 'reindex.toml'
  path.write_text(block)
  assert tomllib.loads(block)
  assert reindex_config.load(str(path)).index == 'gs://bucket/index'


def test_the_errors_that_are_explained_are_those_of_the_program():
  page = (ROOT / 'launch' / 'TROUBLESHOOTING.md').read_text()
  # Words of messages, however their lines are broken.
  code = ' '.join(
    path.read_text()
    for layer in ('influence_core', 'pipeline', 'launch')
    for path in (ROOT / layer).rglob('*.py')
  )
  code = re.sub(r"'\s+(?:f|r)?'", '', code)
  told = re.findall(
    r'^\| `(.*?)`(?: \(.*?\))?(?: or `(.*?)`)? ?…? ?\|', page, re.MULTILINE
  )
  assert len(told) > 15
  for lines in told:
    for part in re.split('…|NO-GO: ', ' … '.join(lines)):
      words = part.strip(' ;')
      assert words in code, words


def test_the_readme_is_one_screen():
  lines = (ROOT / 'README.md').read_text().splitlines()
  assert len(lines) <= 70


def run(code, **names):
  exec(compile(code, 'documentation', 'exec'), names)
  return names


def test_an_index_in_a_notebook(index):
  [block] = [x for x in documentation.blocks('python') if 'open_index(' in x]
  import numpy as np

  code = block.replace('gs://bucket/index', str(index))
  code = code.replace('label = 3', 'half = 1')
  run(code, query_projections=np.ones((2, 6), np.float32))


def test_a_session_in_a_notebook(index):
  [block] = [x for x in documentation.blocks('python') if 'QuerySession(' in x]
  code = block.replace('gs://bucket/index', str(index))
  found = run(code.replace('test[:100]', 'test[:10]'))
  assert found['answer'][None].proponents.positions.shape == (10, 10)


def test_a_projector_in_python(basis, workdir):
  import jax.numpy as jnp
  import numpy as np

  from pipeline import load_arrays
  from tests.kit import linear_task

  [block] = [x for x in documentation.blocks('python') if 'load_basis(' in x]
  code = block.replace('W/arnoldi', str(basis))
  code = code.replace("('Dense_0', 'Dense_1')", "('weights', 'bias')")
  like = {'weights': jnp.zeros(5), 'bias': jnp.zeros(())}
  found = run(
    code.replace('projector.project', 'found = projector.project'),
    per_example_loss=linear_task.per_example_loss,
    params=load_arrays(f'{workdir}/checkpoint', like=like),
    batch={'x': np.ones((3, 5), np.float32), 'y': np.ones(3, np.float32)},
  )
  assert found['found'].shape == (3, 2, 6)


@pytest.mark.parametrize('package', ['influence_core', 'pipeline', 'launch'])
def test_docstrings_are_read_without_warnings(package, caplog):
  """As mkdocstrings reads them: each argument named is one, with a type."""
  caplog.set_level(logging.WARNING, 'griffe')
  tree = griffe.load(
    package, search_paths=[str(ROOT)], docstring_parser='google'
  )
  num_read = sum(1 for _ in parsed_docstrings(tree))
  assert num_read > 400
  assert not [x.getMessage() for x in caplog.records]


def parsed_docstrings(item):
  """Sections of the docstrings of an item and of all inside it."""
  if item.docstring:
    yield item.docstring.parsed
  for member in item.members.values():
    if not member.is_alias:
      yield from parsed_docstrings(member)


def test_docstring_of_a_missing_argument_is_warned_of(tmp_path, caplog):
  """The check above sees what it is there for."""
  caplog.set_level(logging.WARNING, 'griffe')
  text = '"""A."""\ndef f(a: int):\n  """F.\n\n  Args:\n    b: it.\n  """\n'
  (tmp_path / 'odd_module.py').write_text(text)
  tree = griffe.load(
    'odd_module', search_paths=[str(tmp_path)], docstring_parser='google'
  )
  list(parsed_docstrings(tree))
  assert "'b'" in caplog.text
