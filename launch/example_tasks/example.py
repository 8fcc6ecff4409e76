"""What an example task is to `influence train-example`."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import os
import socket
from typing import Any

from influence_core import errors, types
from launch.example_tasks.options import ExampleOptions
from pipeline import RawExample, TfdsCorpus, UndecodableExample
from pipeline.storage import checked_files, files as storage


@dataclasses.dataclass(frozen=True)
class Example:
  """A model with its corpus, to be trained.

  Attributes:
    make_config: options -> all that determines the trained model; a dataclass
      with a method `corpus(split)`.
    load_config: work directory -> the configuration of what was trained there.
    train: (config, work directory, progress). Writes config.json last.
    measure: (config, work directory) -> metrics by name, of the model that is
      stored there.
    prepare: (data_dir) makes the dataset; None where the user does.
  """

  make_config: Callable[[ExampleOptions], Any]
  load_config: Callable[[str], Any]
  train: Callable[[Any, str, types.ProgressCallback], None]
  measure: Callable[[Any, str], dict[str, float]]
  prepare: Callable[[str], None] | None = None


def config_path(workdir: str) -> str:
  """The file that marks a work directory as complete."""
  return storage.join(workdir, 'config.json')


def checkpoint_path(workdir: str) -> str:
  """Where the trained parameters are."""
  return storage.join(workdir, 'checkpoint')


def epochs_path(workdir: str) -> str:
  """The directory of the parameters after some epochs."""
  return storage.join(workdir, 'epochs')


@contextlib.contextmanager
def begin_training(workdir: str) -> Iterator[None]:
  """A training in a work directory, in place of one that was interrupted.

  Raises:
    errors.InputError: Parameters are there that no interrupted training left,
      or another process of this machine is training there.
  """
  marker = storage.join(workdir, 'training.json')
  was_interrupted = storage.exists(marker)
  if was_interrupted:
    _check_gone(marker)
  for path in (checkpoint_path(workdir), epochs_path(workdir)):
    if was_interrupted:
      storage.remove_directory(path)
    elif storage.exists(path):
      raise errors.InputError(
        f'{path} is there, but no config.json of a trained model; choose '
        'another --workdir'
      )
  storage.remove(_metrics_path(workdir))
  save_json(marker, {'host': socket.gethostname(), 'process': os.getpid()})
  yield
  storage.remove(marker)


def _check_gone(marker: str) -> None:
  """Refuses to disturb a training; of other machines nothing is known."""
  holder = checked_files.read_json(marker)
  process = holder['process']
  if holder['host'] != socket.gethostname() or process == os.getpid():
    return
  with contextlib.suppress(PermissionError):  # Somebody else's.
    try:
      os.kill(process, 0)
    except ProcessLookupError:
      return
  raise errors.InputError(
    f'process {process} is training there; wait for it, choose another '
    f'--workdir, or delete {marker} if it is something else'
  )


def save_config(workdir: str, config: Any) -> None:
  """Stores the dataclass that a model was trained by."""
  storage.create_exclusive(
    config_path(workdir), checked_files.encode_json(dataclasses.asdict(config))
  )


def save_json(path: str, content: dict[str, Any]) -> None:
  """Stores what belongs to a model, also over what an interrupted run left."""
  with storage.open_for_writing(path) as file:
    file.write(checked_files.encode_json(content))


def metrics_of(about: Example, config: Any, workdir: str) -> dict[str, float]:
  """Metrics of a trained model, measured once and kept beside it.

  They are no part of the training: where measuring was interrupted, the next
  run measures the model that is stored.
  """
  path = _metrics_path(workdir)
  if not storage.exists(path):
    save_json(path, about.measure(config, workdir))
  return checked_files.read_json(path)


def _metrics_path(workdir: str) -> str:
  return storage.join(workdir, 'metrics.json')


def read_config(workdir: str) -> dict[str, Any]:
  """What `save_config` has stored.

  Raises:
    errors.InputError: Nothing was trained there.
  """
  path = config_path(workdir)
  if not storage.exists(path):
    raise errors.InputError(
      f'workdir {workdir} holds no trained model (no config.json); run '
      'train-example first'
    )
  return checked_files.read_json(path)


def read_split(
  corpus: TfdsCorpus,
) -> Iterator[RawExample]:
  """All examples of a split, raw.

  Raises:
    errors.InputError: One cannot be read.
  """
  for example_id, raw in corpus.read_positions(range(corpus.num_examples)):
    if isinstance(raw, UndecodableExample):
      raise errors.InputError(
        f'example {example_id} of {corpus.dataset} cannot be read '
        f'({raw.reason}); prepare the dataset again'
      )
    yield raw
