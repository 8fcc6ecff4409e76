"""`influence train-example`: trains a model to try the other commands on."""

import importlib
from typing import Any

from influence_core import errors
from launch.example_tasks import example as example_lib
from launch.output import console as console_lib
from pipeline.storage import files as storage, output_places


def run(
  console: console_lib.Console,
  *,
  example: str,
  workdir: str,
  data_dir: str | None,
  dataset: str | None,
  train_split: str,
  size: str | None,
  flip_labels: float,
  corrupt_pairs: float,
  pretrained: str | None,
  num_epochs: int | None,
  seed: int,
) -> dict[str, Any]:
  """Trains an example, or says that it is trained already.

  Both give the metrics, which are kept with the model.

  Raises:
    errors.InputError: An option or the dataset cannot be used, or the work
      directory holds another model.
  """
  module = importlib.import_module(f'launch.example_tasks.{example}')
  about: example_lib.Example = module.EXAMPLE
  if data_dir is None:
    if about.prepare is None:
      raise errors.InputError(
        f'{example} needs --data_dir, the TFDS directory that its dataset was '
        'prepared in'
      )
    data_dir = storage.join(workdir, 'data')
  config = about.make_config(
    example_lib.ExampleOptions(
      data_dir=storage.absolute(data_dir),
      dataset=dataset,
      train_split=train_split,
      size=size,
      flip_labels=flip_labels,
      corrupt_pairs=corrupt_pairs,
      pretrained=pretrained,
      num_epochs=num_epochs,
      seed=seed,
    )
  )
  output_places.check_results(workdir)
  if about.prepare is not None:
    about.prepare(config.data_dir)
  config.corpus(train_split).check()
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
      example_lib.begun(workdir),
      console.stage('train', 'steps') as progress,
    ):
      about.train(config, workdir, progress)
    trained = True
  with console.stage('measure'):
    metrics = example_lib.metrics_of(about, config, workdir)
  told = ', '.join(f'{k} {v:.4f}' for k, v in metrics.items())
  console.print(f'{example}: {told}; stored in {workdir}')
  return {**result, 'trained': trained, **metrics}
