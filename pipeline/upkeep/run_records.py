"""What was estimated for an index, and what its runs took.

    INDEX/runs/20261130T101500-project.json

Nothing depends on these files; they may be deleted.
"""

from collections.abc import Mapping
import dataclasses
import datetime
from typing import Any, Literal

from influence_core import errors
from pipeline.storage import checked_files, files as storage, stored_objects

_DIRECTORY = 'runs'
Kind = Literal['estimate', 'project']


@dataclasses.dataclass(frozen=True)
class RunRecord:
  """A run, or an estimate of one.

  Attributes:
    kind: which of the two.
    started: UTC, ISO 8601.
    num_examples: that were projected, or are to be.
    num_workers: threads, processes or machines, as the engine has them.
    seconds: from begin to end.
    details: anything else that is known.
  """

  kind: Kind
  started: str
  num_examples: int
  num_workers: int
  seconds: float
  details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def examples_per_second(self) -> float:
    return self.num_examples / self.seconds if self.seconds > 0 else 0.0


def now() -> str:
  """The time of a record."""
  moment = datetime.datetime.now(datetime.UTC)
  return moment.isoformat(timespec='seconds')


def save(index: str, record: RunRecord) -> None:
  """Keeps a record beside an index."""
  moment = datetime.datetime.fromisoformat(record.started)
  name = f'{moment:%Y%m%dT%H%M%S}-{record.kind}.json'
  path = storage.join(storage.absolute(index), _DIRECTORY, name)
  with storage.open_for_writing(path) as file:
    file.write(checked_files.encode_json(dataclasses.asdict(record)))


def load_all(index: str) -> list[RunRecord]:
  """All records, the oldest first.

  Raises:
    errors.InputError: There are none.
    storage.DamagedFileError: One is damaged.
  """
  directory = storage.join(storage.absolute(index), _DIRECTORY)
  names = [x for x in storage.list_names(directory) if x.endswith('.json')]
  if not names:
    raise errors.InputError(
      f'no run is recorded at {index}; project writes one, and estimate with '
      '--index'
    )
  paths = [storage.join(directory, name) for name in sorted(names)]
  return [
    stored_objects.parse(RunRecord, checked_files.read_json(path), path)
    for path in paths
  ]
