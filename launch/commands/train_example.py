"""`influence train-example`: trains a model to try the other commands on."""

import importlib
from typing import Any

from influence_core import errors
from launch import console as console_lib
from launch.example_tasks import image_classifier, train_classifier
from pipeline import storage


def run(
  console: console_lib.Console,
  *,
  example: str,
  workdir: str,
  data_dir: str | None,
  flip_labels: float,
  num_epochs: int | None,
  seed: int,
) -> dict[str, Any]:
  """Trains an example, or says that it is trained already."""
  module = importlib.import_module(f'launch.example_tasks.{example}')
  if data_dir is None:
    if not hasattr(module, 'prepare'):
      raise errors.InputError(
        f'{example} needs --data_dir, the TFDS directory that its dataset was '
        'prepared in'
      )
    data_dir = storage.join(workdir, 'data')
  config = module.make_config(
    data_dir=data_dir, flip_labels=flip_labels, num_epochs=num_epochs, seed=seed
  )
  storage.check_writable(workdir)
  if hasattr(module, 'prepare'):
    module.prepare(config.data_dir)
  config.corpus('train').check()
  task = f'{module.__name__}:make_task'
  result = {'task': task, 'workdir': workdir, 'data_dir': config.data_dir}
  if storage.exists(image_classifier.config_path(workdir)):
    if image_classifier.load_config(workdir) != config:
      raise errors.InputError(
        f'{workdir} holds a model trained with other options; choose another '
        '--workdir or delete it'
      )
    console.print(f'{workdir} is trained already with these options.')
    return {**result, 'trained': False}
  with console.stage('train', 'steps') as progress:
    accuracies = train_classifier.train(config, workdir, progress=progress)
  console.print(
    f'trained {example}: accuracy {accuracies["train_accuracy"]:.4f} on the '
    f'training labels as given, {accuracies["test_accuracy"]:.4f} on the test '
    f'split; stored in {workdir}'
  )
  return {**result, 'trained': True, **accuracies}
