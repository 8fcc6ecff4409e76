"""Keeps runs of the same index from each other, on one machine or many.

    INDEX/locks/run-000007.json       who runs since when
    INDEX/locks/run-000007.released   that the run has ended

A run takes the next number by creating its file, which only one can; so it
works in object stores too. A run that ends deletes the files of those before
it, which were released or had expired. Runs that were killed release nothing:
theirs counts for a stated time, or until their machine sees that they are gone.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import datetime
import os
import pathlib
import re
import socket
import uuid

from influence_core import errors
from pipeline.storage import checked_files, files as storage, stored_objects

_NAME = re.compile(r'run-(\d{6})\.json')


class OverlapError(errors.InputError):
  """Another run is at work."""


@dataclasses.dataclass(frozen=True)
class _Holder:
  """Who holds a lock since when; locks of older versions say less."""

  host: str
  process: int
  started: str
  machine: str = ''
  process_started: str = ''
  run: str = ''

  def __post_init__(self):
    if self.since.tzinfo is None:
      raise ValueError(f'{self.started} has no time zone')

  @property
  def since(self) -> datetime.datetime:
    return datetime.datetime.fromisoformat(self.started)

  @classmethod
  def of_this_process(cls) -> '_Holder':
    now = datetime.datetime.now(datetime.UTC)
    return cls(
      socket.gethostname(),
      os.getpid(),
      now.isoformat(timespec='seconds'),
      _machine(),
      _started(os.getpid()),
      uuid.uuid4().hex,
    )

  @property
  def is_gone(self) -> bool:
    """Whether it is a process of this machine that has ended."""
    if not self.machine or self.machine != _machine():
      return False
    return _started(self.process) != self.process_started


@contextlib.contextmanager
def hold(index: str, max_hours: float) -> Iterator[None]:
  """Holds the lock of an index.

  Args:
    index: directory of the index.
    max_hours: how long the lock of a run that never ended counts.

  Raises:
    OverlapError: Another run holds it; names who, where and since when.
  """
  directory = storage.join(index, 'locks')
  numbers = _numbers(directory)
  if numbers:
    _check_free(directory, numbers[-1], max_hours)
  number = numbers[-1] + 1 if numbers else 1
  path = storage.join(directory, _name(number))
  mine = checked_files.encode_json(
    dataclasses.asdict(_Holder.of_this_process())
  )
  if (
    not storage.create_exclusive(path, mine)
    # An object store's answer can get lost and the request be sent again.
    and storage.read_bytes(path) != mine
  ):
    _check_free(directory, number, max_hours)
    raise OverlapError(f'{path} was taken in this moment; run again')
  try:
    yield
  finally:
    released = storage.join(directory, _released(number))
    storage.create_exclusive(released, b'')
    for old in numbers:
      for name in (_name(old), _released(old)):
        storage.remove(storage.join(directory, name))


def _check_free(directory: str, number: int, max_hours: float) -> None:
  if storage.exists(storage.join(directory, _released(number))):
    return
  path = storage.join(directory, _name(number))
  holder = stored_objects.parse(_Holder, checked_files.read_json(path), path)
  if holder.is_gone:
    return
  held = datetime.datetime.now(datetime.UTC) - holder.since
  hours = held.total_seconds() / 3600
  if hours < max_hours:
    raise OverlapError(
      f'process {holder.process} of {holder.host} is at work since '
      f'{holder.started}; wait for it, or delete {path} if it is gone (its '
      f'lock counts for {max_hours:g} hours)'
    )


def _machine() -> str:
  """Where process numbers mean the same, since it was booted; '' if unknown.

  A container has numbers of its own, a name that others may have, too.
  """
  try:
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text('ascii')
    return f'{boot.strip()}/{os.stat("/proc/self/ns/pid").st_ino}'
  except OSError:
    return ''


def _started(process: int) -> str:
  """When a process began, in ticks since the machine did; '' if it is gone."""
  try:
    stat = pathlib.Path(f'/proc/{process}/stat').read_text()
  except OSError:
    return ''
  # Its name comes before, in brackets, and may be anything.
  state, *fields = stat.rpartition(')')[2].split()
  return '' if state == 'Z' else fields[18]


def _numbers(directory: str) -> list[int]:
  matches = map(_NAME.fullmatch, storage.list_names(directory))
  return sorted(int(match[1]) for match in matches if match)


def _name(number: int) -> str:
  return f'run-{number:06d}.json'


def _released(number: int) -> str:
  return f'run-{number:06d}.released'
