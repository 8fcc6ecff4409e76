"""Files by path, local or in an object store, through fsspec.

One code path for `/data/index` and `gs://bucket/index`. Everything durable is
written by `create_exclusive`: an object appears whole or not at all, under a
name that did not exist before, and of several racing writers exactly one wins.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import datetime
import os
import tempfile
from typing import Any, BinaryIO
import uuid

import fsspec
from fsspec.implementations import local

from influence_core import errors
from pipeline.storage import remote_file

# Zonal buckets are not used; asking for them takes long where they are unknown.
os.environ.setdefault('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')
# The store's checksum of what it received is compared with ours.
_CHECKED = {'consistency': 'md5'}


class DamagedFileError(errors.InputError):
  """A stored file is missing, truncated or altered."""


def absolute(path: str) -> str:
  """`path` made independent of the working directory; URLs are kept.

  Raises:
    errors.InputError: It is empty, as an unset variable of a shell is.
  """
  if not path:
    raise errors.InputError(
      'a path is empty, expected a local path or gs://...; is a variable unset?'
    )
  if '://' in path:
    return path.rstrip('/')
  return os.path.abspath(os.path.expanduser(path))


def join(path: str, *names: str) -> str:
  """`path/name/...` for local paths and URLs."""
  return '/'.join([path.rstrip('/'), *names])


def exists(path: str) -> bool:
  """Whether a file or directory is there now (no cached listing is used)."""
  filesystem, name = filesystem_of(path)
  with store_errors(path):
    return filesystem.exists(name)


def list_names(directory: str) -> list[str]:
  """Sorted names inside `directory`; empty when it does not exist."""
  return sorted(sizes(directory))


@dataclasses.dataclass(frozen=True)
class Entry:
  """Something inside a directory.

  Attributes:
    num_bytes: its size.
    modified: when it was written, in seconds of Unix time.
    is_directory: whether it is a directory.
  """

  num_bytes: int
  modified: float
  is_directory: bool


def entries(directory: str) -> dict[str, Entry]:
  """Everything inside `directory` by name, from one listing."""
  filesystem, name = filesystem_of(directory)
  try:
    with store_errors(directory):
      return {
        entry['name'].rstrip('/').rsplit('/', 1)[-1]: Entry(
          entry['size'] or 0, _modified(entry), entry['type'] == 'directory'
        )
        for entry in filesystem.ls(name, detail=True)
      }
  except (FileNotFoundError, NotADirectoryError):
    return {}


def sizes(directory: str) -> dict[str, int]:
  """Size in bytes of everything inside `directory`, from one listing."""
  return {name: entry.num_bytes for name, entry in entries(directory).items()}


def _modified(entry: Mapping[str, Any]) -> float:
  """Unix time, however the file system tells it; 0 where it does not."""
  value = entry.get('mtime') or entry.get('updated') or entry.get('created')
  if isinstance(value, str):
    value = datetime.datetime.fromisoformat(value)
  if isinstance(value, datetime.datetime):
    if value.tzinfo is None:
      value = value.replace(tzinfo=datetime.UTC)
    return value.timestamp()
  return float(value or 0)


def read_bytes(path: str) -> bytes:
  """The whole content of a file.

  Raises:
    DamagedFileError: The file is missing.
  """
  return _read(path)


def read_range(path: str, start: int, stop: int) -> bytes:
  """Bytes [start, stop) of a file, fewer where it ends before.

  Raises:
    DamagedFileError: The file is missing.
  """
  return _read(path, start=start, end=stop)


def _read(path: str, **limits: int) -> bytes:
  filesystem, name = filesystem_of(path)
  try:
    with store_errors(path):
      return filesystem.cat_file(name, **limits)
  except FileNotFoundError as error:
    raise DamagedFileError(f'{path} is missing') from error


def open_for_reading(path: str) -> BinaryIO:
  """A file to be read from begin to end, or in parts by a library.

  Raises:
    DamagedFileError: The file is missing.
  """
  filesystem, name = filesystem_of(path)
  try:
    with store_errors(path):
      stream = filesystem.open(name, 'rb')
  except FileNotFoundError as error:
    raise DamagedFileError(f'{path} is missing') from error
  if not is_local(path):
    stream = remote_file.RemoteFile(stream, lambda: store_errors(path))
  return stream


def create_exclusive(path: str, data: bytes | memoryview) -> bool:
  """Writes a new file durably; False when the name is taken.

  Locally: a synced temporary file and `link`, which never replaces. In object
  stores: one upload that the server accepts only for a new name; when its
  answer is lost, the name seems taken, so whoever must know compares.

  Raises:
    errors.InputError: It cannot be written; nothing is there then.
  """
  filesystem, name = filesystem_of(path)
  try:
    if isinstance(filesystem, local.LocalFileSystem):
      _create_local(name, data)
    else:
      with store_errors(path):
        filesystem.pipe_file(name, bytes(data), mode='create', **_CHECKED)
  except FileExistsError:
    return False
  except OSError as error:
    raise errors.InputError(
      f'cannot write {path} ({_reason(error)}); correct that and run the same '
      'command again, what is stored is kept'
    ) from error
  return True


def _create_local(path: str, data: bytes | memoryview) -> None:
  directory = os.path.dirname(path)
  os.makedirs(directory, exist_ok=True)
  temporary = f'{path}.tmp-{uuid.uuid4().hex}'
  try:
    with open(temporary, 'xb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.link(temporary, path)
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.unlink(temporary)
  descriptor = os.open(directory, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def remove(path: str) -> None:
  """Deletes a file; nothing happens when it is not there."""
  filesystem, name = filesystem_of(path)
  with contextlib.suppress(FileNotFoundError), store_errors(path):
    filesystem.rm_file(name)


def remove_directory(path: str) -> None:
  """Deletes a directory with all inside; nothing happens without one."""
  filesystem, name = filesystem_of(path)
  with contextlib.suppress(FileNotFoundError), store_errors(path):
    filesystem.rm(name, recursive=True)


def remove_empty_directory(path: str) -> None:
  """Deletes a local directory with nothing in it."""
  if is_local(path):
    with contextlib.suppress(OSError):
      os.rmdir(path)


def is_local(path: str) -> bool:
  """Whether a path is on this machine's file system."""
  return (
    '://' not in path
    or fsspec.utils.get_protocol(path) in local.LocalFileSystem.protocol
  )


def check_writable(directory: str) -> None:
  """Writes and removes a small file, so that a job fails before it works.

  Raises:
    errors.InputError: The directory cannot be written.
  """
  probe = join(directory, f'.writable-{uuid.uuid4().hex}')
  try:
    create_exclusive(probe, b'')
    remove(probe)
  except (OSError, errors.InputError) as error:
    reason = _reason(error.__cause__ or error)
    raise errors.InputError(
      f'cannot write to {directory} ({reason}); choose another directory or '
      'correct its permissions'
    ) from error


def _reason(error: BaseException) -> str:
  """What went wrong, without Python's quoting of errno and path."""
  return getattr(error, 'strerror', None) or str(error)


@contextlib.contextmanager
def open_for_writing(path: str) -> Iterator[Any]:
  """A binary file for results, created or replaced when it is whole.

  It is written on a local disk: beside its place, or in the directory for
  temporary files where it is uploaded afterwards.

  Raises:
    errors.InputError: The file cannot be written; an older one stays then.
  """
  filesystem, name = filesystem_of(path)
  is_local_file = isinstance(filesystem, local.LocalFileSystem)
  with contextlib.ExitStack() as stack:
    written = f'{name}.tmp-{uuid.uuid4().hex}'
    if not is_local_file:
      written = f'{stack.enter_context(tempfile.TemporaryDirectory())}/whole'
    try:
      os.makedirs(os.path.dirname(written), exist_ok=True)
      with open(written, 'wb') as file:
        yield file
      if is_local_file:
        os.replace(written, name)
      else:
        with store_errors(path):
          filesystem.put_file(written, name, **_CHECKED)
    except OSError as error:
      raise errors.InputError(
        f'cannot write {path} ({_reason(error)}); choose another path'
      ) from error
    finally:
      with contextlib.suppress(OSError):
        os.unlink(written)


@contextlib.contextmanager
def store_errors(path: str) -> Iterator[None]:
  """Errors of object stores, which every library has its own of, as one kind.

  gcsfs has tried six times by then, with growing pauses.
  """
  try:
    yield
  except (FileNotFoundError, FileExistsError, NotADirectoryError):
    raise
  except Exception as error:
    if is_local(path):
      raise
    raise errors.InputError(
      f'{path}: the object store cannot be used '
      f'({_reason(error) or type(error).__name__}); check network, credentials '
      'and permissions and run the same command again, what is stored is kept'
    ) from error


def filesystem_of(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
  """The file system of `path`, without stale listings, and its name there."""
  if '://' not in path:  # It may have ::, which is something else in URLs.
    filesystem = local.LocalFileSystem()
    return filesystem, filesystem._strip_protocol(path)
  try:
    filesystem, name = fsspec.core.url_to_fs(path)
  except (ValueError, ImportError) as error:
    raise errors.InputError(
      f'{path} cannot be opened ({error}); use a local path or gs://...'
    ) from error
  filesystem.invalidate_cache()
  return filesystem, name.rstrip('/')
