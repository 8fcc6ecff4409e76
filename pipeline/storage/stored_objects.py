"""Objects from what a file says, whoever wrote it.

Files may come from elsewhere, and a checksum only tells that they arrived
whole. So each field is checked against the type that the class declares, and
names of files cannot lead out of the directory that they are in.
"""

from collections.abc import Hashable, Mapping
import functools
from typing import Any, TypeVar, cast

import pydantic

from pipeline.storage import files as storage

Kind = TypeVar('Kind')
# Of a value in an error.
_MAX_SHOWN = 60


def parse(kind: type[Kind], content: Any, path: str) -> Kind:
  """An object of a dataclass, and of those in its fields.

  Args:
    kind: the dataclass; its own checks in `__post_init__` raise ValueError.
    content: values by field, as JSON has them; those of no field are left out.
    path: of the file that it is from, for errors.

  Raises:
    storage.DamagedFileError: Names the first field that is something else.
  """
  try:
    return _adapter(cast(Hashable, kind)).validate_python(content)
  except pydantic.ValidationError as error:
    first = error.errors(include_url=False)[0]
    place = '.'.join(map(str, first['loc'])) or 'the whole'
    found = repr(first['input'])
    if len(found) > _MAX_SHOWN:
      found = f'{found[:_MAX_SHOWN]}...'
    raise storage.DamagedFileError(
      f'{path} was not written by this program, or is damaged: {place} is '
      f'{found}, which is refused ({first["msg"]})'
    ) from error


@functools.cache
def _adapter(kind: Any) -> pydantic.TypeAdapter:
  return pydantic.TypeAdapter(kind)


def member(content: Any, name: str, path: str) -> Any:
  """A value of a JSON object that must have it.

  Raises:
    storage.DamagedFileError: It is no object, or has no such value.
  """
  if not isinstance(content, Mapping) or name not in content:
    raise storage.DamagedFileError(
      f'{path} was not written by this program, or is damaged: {name} is absent'
    )
  return content[name]
