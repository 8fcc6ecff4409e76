"""Results as JSON that every reader takes."""

from collections.abc import Mapping
import datetime
import json
import math
from typing import Any

import numpy as np


def encode(result: Any, indent: int | None = None) -> str:
  """A result as JSON text.

  Numbers that are not finite, which JSON has not, become null; dates and times
  ISO text; bytes, which old indexes may hold, text with marks for what is none.

  Args:
    result: dictionaries, lists, text, numbers of Python and numpy, dates, times
      and bytes.
    indent: spaces of a level; None for one line.
  """
  return json.dumps(_plain(result), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
  match value:
    case np.generic() | np.ndarray():
      return _plain(value.tolist())
    case float():
      return value if math.isfinite(value) else None
    case datetime.date() | datetime.time():
      return value.isoformat()
    case bytes():
      return value.decode(errors='replace')
    case Mapping():
      return {_key(key): _plain(item) for key, item in value.items()}
    case list() | tuple():
      return [_plain(item) for item in value]
  return value


def _key(key: Any) -> Any:
  return key.isoformat() if isinstance(key, datetime.date) else key
