"""A form for a query of one's own: the fields of a raw example."""

import base64
import binascii
from collections.abc import Mapping, Sequence
import json
from typing import Any, Literal, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps

from influence_core import errors
from pipeline.corpora.corpus import ID_KEY, RawExample
from pipeline.tasks import display

Kind = Literal['text', 'number', 'image', 'numbers']

# Longer lists of numbers are left as they are in the example.
_MAX_NUMBERS = 1000
# Pixels that use so much of uint8 are meant as 0 to 255.
_MIN_BRIGHTEST = 128


class Field(NamedTuple):
  """A field of the form.

  Attributes:
    name: of the feature.
    kind: what can be given.
    value: of the first example of the corpus, as text; '' for images.
  """

  name: str
  kind: Kind
  value: str


def fields_of(raw: RawExample) -> list[Field]:
  """The fields that examples such as this one have."""
  found = []
  for name, value in raw.items():
    if name == ID_KEY or value is None:
      continue
    shown = display.shown(value)
    if isinstance(shown, PIL.Image.Image):
      found.append(Field(name, 'image', ''))
    elif isinstance(value, (str, bytes)):
      found.append(Field(name, 'text', str(shown)))
    elif isinstance(shown, np.ndarray) and np.ndim(value) == 0:
      found.append(Field(name, 'number', str(np.asarray(value).item())))
    elif isinstance(shown, np.ndarray) and len(shown) <= _MAX_NUMBERS:
      numbers = np.asarray(value).tolist()
      found.append(Field(name, 'numbers', json.dumps(numbers)))
  return found


def example_of(raw: RawExample, given: Mapping[str, Any]) -> RawExample:
  """An example such as `raw` with other values.

  Args:
    raw: has the types, and the values of what is not given.
    given: by field: text, or an image as {'data': base64}.

  Raises:
    errors.InputError: A value is not what the field has.
  """
  fields: Sequence[Field] = fields_of(raw)
  changed = {
    field.name: _value(field, raw[field.name], given[field.name])
    for field in fields
    if given.get(field.name) not in (None, '', {})
  }
  unknown = given.keys() - {field.name for field in fields}
  if unknown:
    raise errors.InputError(
      f'field {min(unknown)!r} is not one of the corpus, expected '
      f'{", ".join(field.name for field in fields)}'
    )
  return {k: v for k, v in {**raw, **changed}.items() if k != ID_KEY}


def _value(field: Field, old: Any, given: Any) -> Any:
  if field.kind == 'image':
    return _image(field.name, old, given)
  if not isinstance(given, str):
    raise errors.InputError(
      f'{field.name} is {type(given).__name__}, expected a text'
    )
  if field.kind == 'text':
    return given.encode() if isinstance(old, bytes) else given
  try:
    found = np.asarray(json.loads(given)).astype(np.asarray(old).dtype)
    if found.ndim != np.ndim(old):
      raise ValueError
    return found[()]
  except (ValueError, TypeError, OverflowError) as error:
    expected = 'a number' if field.kind == 'number' else 'a list of numbers'
    raise errors.InputError(
      f'{field.name} is {given[:40]!r}, expected {expected}'
    ) from error


def _image(name: str, old: Any, given: Any) -> Any:
  """An uploaded image in the form of those of the corpus."""
  try:
    data = base64.b64decode(given['data'], validate=True)
  except (TypeError, KeyError, ValueError, binascii.Error) as error:
    raise errors.InputError(
      f'{name} is no uploaded file; choose an image'
    ) from error
  image = display.decode_image(data)
  if image is None:
    raise errors.InputError(
      f'{name} is no image that can be read; expected PNG, JPEG, GIF, WebP or '
      'BMP'
    )
  if isinstance(old, bytes):
    return data
  pixels = np.asarray(old)
  has_colours = pixels.ndim == 3 and pixels.shape[2] >= 3
  height, width = pixels.shape[:2]
  fitted = PIL.ImageOps.fit(
    image.convert('RGB' if has_colours else 'L'), (width, height)
  )
  values = np.asarray(fitted, np.float32)
  brightest = float(pixels.max())
  if pixels.dtype != np.uint8 or brightest < _MIN_BRIGHTEST:
    values *= np.float32((brightest or 255) / 255)
  return values.reshape(pixels.shape).astype(pixels.dtype)
