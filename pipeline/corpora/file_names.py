"""What the names of files say: the split, and of arrays the column."""

import re

# The split of files whose names say none.
ONLY_SPLIT = 'train'
# What is numbered, but says none: data-00000-of-00002.arrow.
_NO_SPLIT = 'data'
# What comes before the number of a file, as in train-00000-of-00008.parquet.
_NUMBERED = re.compile(r'(.+?)[-_.]\d+-of-\d+.*')
_NUMBER = re.compile(r'[-_.]\d+-of-\d+')
# Names of splits that files have without a number.
_SPLITS = 'train|test|validation|valid|val|dev|eval'
_KNOWN = re.compile(rf'({_SPLITS})\b.*')
# Of an array, before or after what it holds: x_train.npy, train-images.npy.
_ARRAY = re.compile(
  rf'(?P<before>{_SPLITS})(?:[-_.](?P<last>.+))?'
  rf'|(?P<first>.+)[-_.](?P<after>{_SPLITS})'
)
ARRAY_SUFFIX = '.npy'
# The column of an array whose name says only the split.
_ONLY_COLUMN = 'array'


def split_of(name: str) -> str:
  """The split that a path says, by file, directory or what is numbered."""
  *directories, file = name.split('/')
  if match := _match_array(file):
    return match['before'] or match['after']
  for part in (file, *reversed(directories)):
    if match := _KNOWN.fullmatch(part):
      return match[1]
  match = None if _is_array(file) else _NUMBERED.fullmatch(file)
  return match[1] if match and match[1] != _NO_SPLIT else ONLY_SPLIT


def column_of(path: str) -> str:
  """What the array of an .npy file holds: its name without the split."""
  file = path.rpartition('/')[2]
  if match := _match_array(file):
    return match['last'] or match['first'] or _ONLY_COLUMN
  return _NUMBER.sub('', file.removesuffix(ARRAY_SUFFIX))


def shard_of(name: str) -> str:
  """The source shard of a file by its path in the directory.

  Arrays of a split are columns of the same rows: one source shard.
  """
  if not _is_array(name):
    return name.replace('/', '.')
  number = _NUMBER.search(name.rpartition('/')[2])
  return f'{split_of(name)}{number[0] if number else ""}{ARRAY_SUFFIX}'


def _is_array(name: str) -> bool:
  return name.endswith(ARRAY_SUFFIX)


def _match_array(file: str) -> re.Match[str] | None:
  """How an .npy file names its split, if it does."""
  if not _is_array(file):
    return None
  stem = _NUMBER.sub('', file.removesuffix(ARRAY_SUFFIX))
  return _ARRAY.fullmatch(stem)
