"""Recipes of `influence reproduce`, on little data."""

import dataclasses
import json
import shlex

import pytest

from launch.commands import reproduce
from launch.flags import parser as flags
from launch.reproduce import (
  classifier_recipe,
  classifier_tables,
  ensemble_recipe,
  recipes,
  translation_recipe,
)
from tests.kit import recipe_methods, text_corpus

_TINY_TRAINING = (
  *('--flip_labels', '0.1', '--size', 'mini'),
  *('--train_split', 'train[:150]'),
)
TINY_DIGITS = dataclasses.replace(
  classifier_recipe.DIGITS,
  training=(*_TINY_TRAINING, '--num_epochs', '2'),
  underfitted=(*_TINY_TRAINING, '--num_epochs', '1'),
  wide=60,
  coordinates=(4, 9),
  sample_size=32,
  num_products=(3, 3),
  num_subsets=3,
  dampings=('0.01',),
  small=None,
  knobs=(),
)
# Studies besides methods, whose commands have tests of their own.
TINY_STUDIES = dataclasses.replace(
  TINY_DIGITS,
  small=(*_TINY_TRAINING, '--num_epochs', '1'),
  knobs=('damping=0,1',),
)
TINY_TRANSLATION = dataclasses.replace(
  translation_recipe.MULTI30K,
  training=(
    *('--dataset', 'numbers', '--num_epochs', '1'),
    *('--corrupt_pairs', '0.2', '--train_split', 'train[:120]'),
    *('--num_tokens', '12'),
  ),
  projection_dim=8,
  few=4,
  sample_size=32,
  num_products=(2, 2),
)


TINY_ENSEMBLE = dataclasses.replace(
  ensemble_recipe.DIGITS,
  training=(*_TINY_TRAINING, '--num_epochs', '1'),
  num_models=2,
  basis=('--method', 'kronecker', '--coordinates_per_layer', '4'),
  num_subsets=3,
)


@pytest.mark.parametrize('name', reproduce.RECIPES)
def test_commands_of_a_recipe_can_be_typed(name):
  steps = reproduce.RECIPES[name].steps('OUT', 'DATA')
  assert len({step.name for step in steps}) == len(steps)
  for step in steps:
    parsed, _ = flags.parse(list(step.argv))
    assert ' '.join(step.argv).startswith(parsed.command)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('recipe', 'rows'),
  [
    (TINY_DIGITS, []),
    pytest.param(
      TINY_STUDIES,
      ['| `arnoldi_60` |', '| defaults | `damping` | `1` |'],
      marks=pytest.mark.scale,
    ),
  ],
)
def test_classifier_recipe(influence, monkeypatch, tmp_path, recipe, rows):
  monkeypatch.setitem(reproduce.RECIPES, 'digits', recipe)
  others = 'cg', 'lissa', 'tracin', 'random_gram_wide', 'kronecker_few'
  recipe_methods.leave_out(monkeypatch, recipe, others)
  for name, few in (
    ('_DAMPED', ('arnoldi', 'random_gram')),
    ('_DAMPED_BY_LAYER', ('kronecker',)),
    ('_RELATIVE_DAMPINGS', ('0.1x',)),
  ):
    monkeypatch.setattr(classifier_tables, name, few)
  command = ['reproduce', 'digits', '--out', tmp_path]
  done = influence(*command)
  assert done.status == 0, done.stderr
  page = (tmp_path / 'RESULTS.md').read_text()
  assert page in done.stdout
  for row in (*(f'| `{x.name}` |' for x in recipe.methods), *rows):
    assert row in page
  steps = recipe.steps(str(tmp_path), None)
  results = sorted((tmp_path / 'results').iterdir())
  assert len(results) == len(steps)
  # What is there is not run again.
  kept = {path: path.read_bytes() for path in results}
  assert influence(*command).status == 0
  assert (tmp_path / 'RESULTS.md').read_text() == page
  assert {path: path.read_bytes() for path in results} == kept


@pytest.mark.scale
def test_translation_recipe(influence, monkeypatch, tmp_path):
  text_corpus.prepare(tmp_path / 'data')
  monkeypatch.setitem(reproduce.RECIPES, 'multi30k', TINY_TRANSLATION)
  solved = 'ekfac', 'lissa', 'gradient', 'tracin'
  recipe_methods.leave_out(monkeypatch, TINY_TRANSLATION, solved)
  done = influence(
    *('reproduce', 'multi30k', '--out', tmp_path / 'r'),
    *('--data_dir', tmp_path / 'data', '--json'),
  )
  assert done.status == 0, done.stderr
  page = (tmp_path / 'r' / 'RESULTS.md').read_text()
  assert 'Wrong pairs, 24 of 120' in page
  assert '| truncated | 6 | self-influence, `arnoldi` |' in page
  for method in TINY_TRANSLATION.methods:
    assert f'| `{method.name}` |' in page
  assert str(tmp_path / 'r') not in page
  # What is shown can be pasted, conditions with quotes too.
  shown = [
    shlex.split(line, comments=True)[1:]
    for line in page.splitlines()
    if line.startswith('influence ')
  ]
  steps = TINY_TRANSLATION.steps('OUT', str(tmp_path / 'data'))
  assert shown == [list(step.argv) for step in steps]
  topk = json.loads((tmp_path / 'r' / 'results' / 'topk.json').read_text())
  queries = topk['content']['result']['queries']
  assert len(queries) == 10
  for query in queries:
    assert f'| {query["source"]} → {query["target"]} |' in page


@pytest.mark.scale
def test_ensemble_recipe(influence, monkeypatch, tmp_path):
  """Other models of the same data, so that their indexes belong together."""
  monkeypatch.setitem(reproduce.RECIPES, 'digits_ensemble', TINY_ENSEMBLE)
  done = influence('reproduce', 'digits_ensemble', '--out', tmp_path)
  assert done.status == 0, done.stderr
  page = (tmp_path / 'RESULTS.md').read_text()
  for name in ('seed 0', 'seed 1', 'all 2'):
    assert f'| {name} | ' in page
  assert 'for 15 wrong labels of 150' in page
  flips, parameters = (
    [(tmp_path / f'model_{x}' / name).read_bytes() for x in (0, 1)]
    for name in ('label_flips.json', 'index/manifest-000001.json')
  )
  assert flips[0] == flips[1]
  found = [
    json.loads(text)['content']['provenance']['fingerprints']
    for text in parameters
  ]
  assert found[0]['parameters'] != found[1]['parameters']
  assert found[0]['preprocessing'] == found[1]['preprocessing']


@dataclasses.dataclass(frozen=True)
class Listed:
  """A recipe of given commands, shown with the last one's result."""

  argvs: tuple[tuple[str, ...], ...]
  needs_data = False

  def steps(self, out, data_dir):
    del out, data_dir
    return [recipes.Step(str(i), argv) for i, argv in enumerate(self.argvs)]

  def tables(self, found):
    last = found[str(len(found) - 1)]
    return [json.dumps(last['result'], sort_keys=True)]


def test_what_follows_a_changed_command_is_run_again(
  influence, index, monkeypatch, tmp_path
):
  def times(*first):
    argvs = tuple((*x, '--index', str(index)) for x in (first, ('describe',)))
    monkeypatch.setitem(reproduce.RECIPES, 'digits', Listed(argvs))
    done = influence('reproduce', 'digits', '--out', tmp_path)
    assert done.status == 0, done.stderr
    assert '"num_examples": 303' in (tmp_path / 'RESULTS.md').read_text()
    files = (tmp_path / 'results' / f'{number}.json' for number in (0, 1))
    return [file.stat().st_mtime_ns for file in files]

  before = times('verify')
  assert times('verify') == before
  after = times('generations')
  assert all(new > old for new, old in zip(after, before, strict=True))


def test_data_are_asked_for_before_anything_is_run(influence, tmp_path):
  found = influence('reproduce', 'mnist', '--out', tmp_path / 'r')
  assert 'mnist needs --data_dir' in found.error_line
  assert not (tmp_path / 'r' / 'results').exists()
