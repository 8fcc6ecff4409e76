"""What people look at of an example: images, texts and numbers.

`Task.show` says what that is. Without it the form of the raw features does:
arrays that can be pixels, and encoded files, are images.
"""

from collections.abc import Iterator, Mapping
import io
from typing import Any, NamedTuple
import warnings

import numpy as np
import PIL.Image

from influence_core import user_code
from pipeline.corpora.corpus import ID_KEY, RawExample
from pipeline.tasks import task as task_lib

# What is drawn as pixels where nobody says so.
_CHANNELS = (1, 3, 4)
_SMALLEST_SIDE = 4
_SMALLEST_SIDE_OF_MATRIX = 8
# How encoded files begin; other bytes are text.
_SIGNATURES = (b'\x89PNG', b'\xff\xd8\xff', b'GIF8', b'RIFF', b'BM')
_FORMATS = ('PNG', 'JPEG', 'GIF', 'WEBP', 'BMP')
_NO_IMAGE = (
  *(OSError, ValueError, SyntaxError),
  *(PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning),
)


class Piece(NamedTuple):
  """Something of an example.

  Attributes:
    name: of it.
    value: an image, a text, or numbers, [n] float64.
  """

  name: str
  value: PIL.Image.Image | str | np.ndarray


def pieces_of(
  task: task_lib.Task, example_id: str, raw: RawExample
) -> list[Piece]:
  """What to show of an example, besides the columns of its row.

  Args:
    task: that it is of.
    example_id: for errors.
    raw: the example.

  Raises:
    errors.InputError: A function of the task fails.
  """
  if task.show:
    with user_code.user_errors(f'show of {example_id}', task.show):
      return list(_pieces('', dict(task.show(raw))))
  hidden = {ID_KEY}
  if task.row_columns:
    with user_code.user_errors(f'row_columns of {example_id}'):
      hidden |= set(task.row_columns(raw))
  left = {name: value for name, value in raw.items() if name not in hidden}
  found = list(_pieces('', left))
  if task.token_texts:
    with user_code.user_errors(f'token_texts of {example_id}'):
      text = ''.join(map(str, task.token_texts(raw)))
    # Numbers of tokens tell nobody anything.
    found = [x for x in found if not isinstance(x.value, np.ndarray)]
    if not any(isinstance(x.value, str) for x in found):
      found.append(Piece('text', text))
  return found


def _pieces(prefix: str, values: Mapping[str, Any]) -> Iterator[Piece]:
  for name, value in values.items():
    if isinstance(value, Mapping):
      yield from _pieces(f'{prefix}{name}/', value)
    elif value is not None:
      yield Piece(f'{prefix}{name}', shown(value))


def shown(value: Any) -> PIL.Image.Image | str | np.ndarray:
  """A feature as people see it, see `Piece`."""
  if isinstance(value, PIL.Image.Image):
    return value
  if isinstance(value, bytes):
    if not value.startswith(_SIGNATURES):
      return value.decode(errors='replace')
    return decode_image(value) or f'{len(value):,} bytes that are no image'
  if isinstance(value, str):
    return value
  array = np.asarray(value)
  if array.dtype.kind not in 'biuf':
    texts = array.reshape(-1).tolist()
    return ', '.join(
      x.decode(errors='replace') if isinstance(x, bytes) else str(x)
      for x in texts
    )
  if (image := _image(array)) is not None:
    return image
  if array.ndim > 1:
    return f'{array.dtype} array of shape {array.shape}'
  return array.reshape(-1).astype(np.float64)


def _image(array: np.ndarray) -> PIL.Image.Image | None:
  """An array as an image, if it can be one."""
  if array.ndim == 2 and min(array.shape) >= _SMALLEST_SIDE_OF_MATRIX:
    array = array[..., None]
  if (
    array.ndim != 3
    or array.shape[2] not in _CHANNELS
    or min(array.shape[:2]) < _SMALLEST_SIDE
  ):
    return None
  if array.dtype != np.uint8:
    array = _as_bytes(np.nan_to_num(array.astype(np.float64)))
  return PIL.Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def _as_bytes(values: np.ndarray) -> np.ndarray:
  """Values from 0 to 1 as they are; others from the lowest to the highest."""
  low, high = values.min(), values.max()
  if low >= 0 and high <= 1:
    low, high = 0.0, 1.0
  return np.round((values - low) / ((high - low) or 1) * 255).astype(np.uint8)


def decode_image(data: bytes) -> PIL.Image.Image | None:
  """An encoded image; None where it is none, or too large to be meant."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('error', PIL.Image.DecompressionBombWarning)
      image = PIL.Image.open(io.BytesIO(data), formats=_FORMATS)
      image.load()
  except _NO_IMAGE:
    return None
  return image
