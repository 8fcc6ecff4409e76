"""`influence reproduce`: every method on a dataset, as one table.

Each command of the recipe is run as if typed, and its result kept in
OUT/results, so that a run that was interrupted goes on where it was.
"""

import re
import shlex
import time
from typing import Any

from influence_core import errors
from launch.output import console as console_lib
from launch.reproduce import (
  classifier_recipe,
  ensemble_recipe,
  facts_recipe,
  recipes,
  results_page,
  translation_recipe,
)
from launch.running import command_line
from pipeline.storage import (
  checked_files,
  files as storage,
  fingerprints,
  output_places,
)

RECIPES: dict[str, recipes.Recipe] = {
  'digits': classifier_recipe.DIGITS,
  'mnist': classifier_recipe.MNIST,
  'multi30k': translation_recipe.MULTI30K,
  'facts': facts_recipe.FACTS,
  'digits_ensemble': ensemble_recipe.DIGITS,
  'mnist_ensemble': ensemble_recipe.MNIST,
}


def run(
  console: console_lib.Console,
  *,
  recipe: str,
  out: str,
  data_dir: str | None,
) -> dict[str, Any]:
  """Runs a recipe and writes OUT/RESULTS.md.

  Raises:
    errors.InputError: A step cannot be run.
  """
  out = output_places.check_results(out)
  chosen = RECIPES[recipe]
  if chosen.needs_data and data_dir is None:
    raise errors.InputError(
      f'{recipe} needs --data_dir, the TFDS directory that its dataset was '
      'prepared in'
    )
  steps = chosen.steps(out, data_dir and storage.absolute(data_dir))
  found = {}
  for number, step in enumerate(steps):
    console.print(
      f'[{number + 1}/{len(steps)}] influence {shlex.join(step.argv)}'
    )
    history = fingerprints.of_json([x.argv for x in steps[: number + 1]])
    found[step.name] = _run_step(console, step, out, history)
  page = results_page.render(recipe, chosen, steps, found, out)
  path = storage.join(out, 'RESULTS.md')
  with storage.open_for_writing(path) as file:
    file.write(page.encode())
  console.print(page)
  console.print(f'wrote {path}')
  return {'out': out, 'page': path, 'num_steps': len(steps)}


def _run_step(
  console: console_lib.Console, step: recipes.Step, out: str, history: str
) -> dict[str, Any]:
  """The result of a step and its seconds, from before if there are.

  Args:
    console: not printed to.
    step: what to run.
    out: directory.
    history: fingerprint of this step and all before it; what was run after
      others is run again.
  """
  name = re.sub('[^a-z0-9]+', '_', step.name)
  path = storage.join(out, 'results', f'{name}.json')
  if storage.exists(path):
    kept = checked_files.read_json(path)
    if kept['history'] == history:
      return kept
  started = time.monotonic()
  result = command_line.run(console.quiet(), *step.argv)
  content = {
    'argv': step.argv,
    'history': history,
    'seconds': time.monotonic() - started,
    'result': result,
  }
  with storage.open_for_writing(path) as file:
    file.write(checked_files.encode_json(content))
  # Read again, so that a page does not depend on what was run just now.
  return checked_files.read_json(path)
