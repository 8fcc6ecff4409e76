"""Copies of remote files on this machine, made once for all its processes.

    CACHE/<key>/       what was copied; its time is that of the last use
    CACHE/<key>.lock   locked while something is copied

A key stands for a path and the identity of what is stored there, so a file that
was replaced is never mistaken for the new one. The cache takes what the disk
has; where that is not enough, what was not used for longest goes first.

Of a thousand machines that start at once, each begins at another piece, so that
no object is asked for by all of them at the same time.
"""

from collections.abc import Callable, Iterator, Mapping
import concurrent.futures
import contextlib
import fcntl
import os
import pathlib
import shutil
import socket
import tempfile
import time
import zlib

from influence_core import errors
from pipeline.storage import (
  checked_files,
  file_identity,
  files as storage,
  fingerprints,
)

DIRECTORY_VARIABLE = 'INFLUENCE_CACHE_DIR'

_PIECE_BYTES = 8 << 20
_NUM_READERS = 8
# Left free for everybody else.
_RESERVE_BYTES = 1 << 30
# What was used so recently may be about to be opened.
_SPARED_SECONDS = 600


def local_directory(path: str, *, without: str | None = None) -> str:
  """A directory of this machine that holds what is stored below `path`.

  Args:
    path: local, which is returned as it is, or remote.
    without: files with this in their name are left out.

  Raises:
    storage.DamagedFileError: A file is missing or does not arrive as stored.
    errors.InputError: The disk is too small.
  """
  if storage.is_local(path):
    return path
  files = {
    name: identity
    for name, identity in file_identity.tree(path).items()
    if without is None or without not in name
  }
  return str(_local_copy(path, files))


def local_file(path: str) -> str:
  """A file of this machine that holds what is stored at `path`.

  Args:
    path: local, which is returned as it is, or remote.

  Raises:
    storage.DamagedFileError: It is missing or does not arrive as stored.
    errors.InputError: The disk is too small.
  """
  identity = _identify(path)
  if storage.is_local(path):
    return path
  directory, _, name = path.rpartition('/')
  return str(_local_copy(directory, {name: identity}) / name)


def _local_copy(
  path: str, files: Mapping[str, file_identity.FileIdentity]
) -> pathlib.Path:
  """A directory with copies of files that are stored below `path`."""
  if not files:
    raise storage.DamagedFileError(f'{path} is missing')
  place = place_for(path, [[n, x.fingerprint] for n, x in files.items()])
  content, complete = place / 'content', place / 'complete'
  with locked(place):
    if not complete.exists():
      shutil.rmtree(content, ignore_errors=True)
      make_room(path, sum(x.num_bytes for x in files.values()))
      _copy(path, files, content)
      complete.touch()
  return content


def _identify(path: str) -> file_identity.FileIdentity:
  identity = file_identity.identify(path)
  if identity is None:
    raise storage.DamagedFileError(f'{path} is missing')
  return identity


def make_once(
  path: str,
  name: str,
  make: Callable[[pathlib.Path], None],
  *,
  num_bytes: int | None = None,
) -> str:
  """A file of this machine that is made of a stored one, until that changes.

  Args:
    path: of the stored file.
    name: of what is made.
    make: writes it to a path.
    num_bytes: of what is made; None for those of the stored file.

  Raises:
    storage.DamagedFileError: The stored file is missing.
    errors.InputError: The disk is too small, or cannot be written.
  """
  identity = _identify(path)
  place = place_for(path, [name, identity.fingerprint])
  made = place / name
  with locked(place):
    if not made.exists():
      make_room(path, num_bytes or identity.num_bytes)
      temporary = place / f'{name}.tmp'
      make(temporary)
      temporary.replace(made)
  return str(made)


def place_for(path: str, identity: object) -> pathlib.Path:
  """Where a copy of what is at `path` now has its place."""
  root = os.environ.get(DIRECTORY_VARIABLE) or os.path.join(
    tempfile.gettempdir(), f'influence-cache-{os.getuid()}'
  )
  return pathlib.Path(root) / fingerprints.of_json([path, identity])


@contextlib.contextmanager
def locked(place: pathlib.Path) -> Iterator[None]:
  """Keeps other threads and processes away from a place, and marks its use."""
  with _told(place):
    place.mkdir(parents=True, exist_ok=True)
    with open(f'{place}.lock', 'w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      place.mkdir(exist_ok=True)  # It may have had to make room meanwhile.
      os.utime(place)
      yield


def make_room(path: str, num_bytes: int) -> None:
  """Deletes what was not used for longest until the disk has room for a copy.

  Raises:
    errors.InputError: There is not so much to delete.
  """
  root = place_for(path, None).parent
  places = sorted(
    (entry for entry in root.iterdir() if entry.is_dir()),
    key=lambda entry: entry.stat().st_mtime,
  )
  while (free := shutil.disk_usage(root).free) < num_bytes + _RESERVE_BYTES:
    if not places or places[0].stat().st_mtime > time.time() - _SPARED_SECONDS:
      raise errors.InputError(
        f'the copy of {path} needs {num_bytes / 1e9:.1f} GB on the disk of '
        f'{root}, which has {free / 1e9:.1f} GB free and keeps '
        f'{_RESERVE_BYTES / 1e9:.1f}; set {DIRECTORY_VARIABLE} to a directory '
        'of a larger disk'
      )
    _remove_unless_locked(places.pop(0))


def _remove_unless_locked(place: pathlib.Path) -> None:
  """Deletes a copy, but for one that somebody is at work on."""
  with open(f'{place}.lock', 'w') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      return
    shutil.rmtree(place, ignore_errors=True)


def _copy(
  path: str,
  files: Mapping[str, file_identity.FileIdentity],
  content: pathlib.Path,
) -> None:
  for name, identity in files.items():
    (content / name).parent.mkdir(parents=True, exist_ok=True)
    with open(content / name, 'wb') as file:
      file.truncate(identity.num_bytes)
  pieces = [
    (name, start, min(start + _PIECE_BYTES, identity.num_bytes))
    for name, identity in files.items()
    for start in range(0, identity.num_bytes, _PIECE_BYTES)
  ]
  first = zlib.crc32(socket.gethostname().encode()) % max(1, len(pieces))

  def fetch(piece: tuple[str, int, int]) -> None:
    name, start, stop = piece
    data = storage.read_range(storage.join(path, name), start, stop)
    with open(content / name, 'r+b') as file:
      file.seek(start)
      file.write(data)

  with concurrent.futures.ThreadPoolExecutor(_NUM_READERS) as pool:
    list(pool.map(fetch, pieces[first:] + pieces[:first]))
  for name, identity in files.items():
    if identity.crc32c is not None:
      _check(storage.join(path, name), content / name, identity)


def _check(
  path: str, copy: pathlib.Path, identity: file_identity.FileIdentity
) -> None:
  check = checked_files.RunningCheck(
    path,
    checked_files.StoredFile(path, identity.num_bytes, str(identity.crc32c)),
  )
  with open(copy, 'rb') as file:
    while piece := file.read(_PIECE_BYTES):
      check.add(piece)
  check.finish()


@contextlib.contextmanager
def _told(place: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise errors.InputError(
      f'cannot write to {place.parent} ({error.strerror or error}); set '
      f'{DIRECTORY_VARIABLE} to a directory of a disk with room'
    ) from error
