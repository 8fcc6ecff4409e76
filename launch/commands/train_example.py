"""`influence train-example`: trains a model to try the other commands on."""

import dataclasses
import importlib
import types as python_types
from typing import Any

from influence_core import errors
from launch.example_tasks import example as example_lib
from launch.example_tasks.options import ExampleOptions
from launch.output import console as console_lib
from pipeline.storage import files as storage, output_places


def run(
  console: console_lib.Console,
  *,
  example: str,
  workdir: str,
  options: ExampleOptions,
) -> dict[str, Any]:
  """Trains an example, or says that it is trained already.

  Both give the metrics, which are kept with the model.

  Raises:
    errors.InputError: An option or the dataset cannot be used, or the work
      directory holds another model.
  """
  module = _import(example)
  about: example_lib.Example = module.EXAMPLE
  data_dir = options.data_dir
  if not data_dir:
    if about.prepare is None:
      raise errors.InputError(
        f'{example} needs --data_dir, the TFDS directory that its dataset was '
        'prepared in'
      )
    data_dir = storage.join(workdir, 'data')
  config = about.make_config(
    dataclasses.replace(options, data_dir=storage.absolute(data_dir))
  )
  output_places.check_results(workdir)
  if about.prepare is not None:
    about.prepare(config.data_dir)
  config.corpus(options.train_split).check()
  task = f'{module.__name__}:make_task'
  result = {'task': task, 'workdir': workdir, 'data_dir': config.data_dir}
  if storage.exists(example_lib.config_path(workdir)):
    if about.load_config(workdir) != config:
      raise errors.InputError(
        f'{workdir} holds a model trained with other options; choose another '
        '--workdir or delete it'
      )
    console.print(f'{workdir} is trained already with these options.')
    trained = False
  else:
    with (
      example_lib.begin_training(workdir),
      console.stage('train', 'steps') as progress,
    ):
      about.train(config, workdir, progress)
    trained = True
  with console.stage('measure'):
    metrics = example_lib.metrics_of(about, config, workdir)
  told = ', '.join(f'{k} {v:.4f}' for k, v in metrics.items())
  console.print(f'{example}: {told}; stored in {workdir}')
  return {**result, 'trained': trained, **metrics}


def _import(example: str) -> python_types.ModuleType:
  """The module of an example.

  Raises:
    errors.InputError: A package that only examples need is missing.
  """
  try:
    return importlib.import_module(f'launch.example_tasks.{example}')
  except ModuleNotFoundError as error:
    raise errors.InputError(
      f'{example} needs the package {error.name}; install '
      "'influence-pipeline[examples]'"
    ) from error
