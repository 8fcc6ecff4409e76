"""Files in an object store that libraries read as they read others."""

from collections.abc import Callable
from contextlib import AbstractContextManager
import io
import os
from typing import Any


class RemoteFile(io.RawIOBase):
  """A file of fsspec whose errors in reading are told in our way.

  Libraries that are given a file pass on whatever reading it raises.
  """

  def __init__(
    self, stream: Any, store_errors: Callable[[], AbstractContextManager]
  ):
    """Takes an open file.

    Args:
      stream: the file; closed with this one.
      store_errors: what is read is read inside it.
    """
    self._stream = stream
    self._store_errors = store_errors

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return True

  def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
    return self._stream.seek(offset, whence)

  def tell(self) -> int:
    return self._stream.tell()

  def read(self, size: int = -1) -> bytes:
    with self._store_errors():
      return self._stream.read(size)

  def readinto(self, buffer: Any) -> int:
    data = self.read(len(buffer))
    buffer[: len(data)] = data
    return len(data)

  def close(self) -> None:
    self._stream.close()
    super().close()
