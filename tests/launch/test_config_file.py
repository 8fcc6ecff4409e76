"""Flags from a file: the same commands, whichever way they are given."""

import tomllib

import pytest

from launch.flags import parser as flags
from tests.launch.test_wrong_inputs import RIGHT

COMMANDS = [name for name in RIGHT if name not in ('reindex', 'schedule')]
WHOLE = """
task = "tests.kit.linear_task:make_task"
basis = "{place}/basis"
index = "{place}/index"
refit_basis = true

[task_arg]
workdir = "{workdir}"

[fit-basis]
projection_dim = 6
num_iterations = 6

[project]
range_size = 40
beam = ["--direct_num_workers=1"]

[topk]
query_split = "test[:2]"
k = 3

["evaluate detection"]
bad = "half = 1"
"""


@pytest.fixture(name='config')
def fixture_config(workdir, tmp_path):
  path = tmp_path / 'all.toml'
  path.write_text(WHOLE.format(place=tmp_path, workdir=workdir))
  return path


def told(influence, *arguments):
  found = influence(*arguments, '--print_config')
  assert found.status == 0, found.stderr
  return found.stdout


@pytest.mark.parametrize('command', COMMANDS)
def test_what_is_printed_stands_for_what_was_typed(
  command, influence, tmp_path
):
  right = [x.replace('<workdir>', 'workdir=W') for x in RIGHT[command]]
  words = [*command.split(), *right]
  path = tmp_path / 'c.toml'
  place = words.index('--') if '--' in words else len(words)
  printed = told(influence, *words[:place])
  path.write_text(printed)
  # Names that are no flags are typed all the same.
  bare = [*command.split()]
  if command in ('train-example', 'reproduce', 'install-engine', 'status'):
    bare.append(words[len(bare)])
  assert told(influence, *bare, '--config', path) == printed
  rest = words[place:]
  by_file = flags.parse([*bare, f'--config={path}', *rest])[1]
  assert by_file == flags.parse(words)[1]


def test_one_file_serves_all_commands(influence, config, tmp_path):
  for command in ('fit-basis', 'project', 'evaluate detection'):
    done = influence(*command.split(), '--config', config)
    assert done.status == 0, done.stderr
  found = influence('topk', '--config', config, '--json')
  assert len(found.json['results']) == 2 * 2 * 3
  # What is typed stands above the file.
  found = influence('topk', '--config', config, '--k', 1, '--json')
  assert len(found.json['results']) == 2 * 2 * 1
  assert influence('reindex', '--config', config).status == 0


def test_results_can_be_made_again(influence, index, tmp_path):
  out = tmp_path / 'self.csv'
  command = ['self-influence', '--index', index, '--k', 9, '--out', out]
  assert influence(*command).status == 0
  first = out.read_bytes()
  kept = tmp_path / 'self.csv.toml'
  assert tomllib.loads(kept.read_text())['self-influence']['k'] == 9
  out.unlink()
  assert influence('self-influence', '--config', kept).status == 0
  assert out.read_bytes() == first


def test_an_index_says_how_it_was_projected(influence, config, tmp_path):
  assert influence('fit-basis', '--config', config).status == 0
  assert influence('project', '--config', config).status == 0
  kept = tomllib.loads((tmp_path / 'index' / 'project.toml').read_text())
  assert kept['project']['range_size'] == 40
  assert kept['project']['beam'] == ['--direct_num_workers=1']
  kept = tomllib.loads((tmp_path / 'basis' / 'fit-basis.toml').read_text())
  assert kept['basis'] == str(tmp_path / 'basis')
  assert influence('verify', '--index', tmp_path / 'index').status == 0


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('taks = "a:b"', "unknown key 'taks'; did you mean task"),
    ('[topk]\ndampling = 3', "key 'topk.dampling'; did you mean damping"),
    ('[tpok]\nk = 3', "unknown key 'tpok'; did you mean topk"),
    ('topk = 3', 'topk is 3, expected a table, [topk]'),
    ('[topk]\ntokens = "yes"', "tokens is 'yes', expected true or false"),
    ('[topk]\nk = true', 'k is True, expected a value'),
    ('[topk]\nk = "many"', "argument --k: invalid int value: 'many'"),
    ('[topk]\nk = 0', 'k is 0'),
    ('topk', 'is no TOML file'),
    (None, 'no configuration at'),
  ],
)
def test_mistakes_are_told_in_one_line(
  influence, index, tmp_path, text, message
):
  path = tmp_path / 'c.toml'
  if text is not None:
    path.write_text(text)
  asked = ('--index', index, '--query_split', 'test[:2]')
  assert message in influence('topk', *asked, '--config', path).error_line
