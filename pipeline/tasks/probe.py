"""A few raw examples, kept beside a basis to know preprocessing again.

The fingerprint of preprocessing is that of what it makes of these. They are
stored, since those of the corpus come and go.
"""

from collections.abc import Sequence

from influence_core import errors
from pipeline.corpora import corpus as corpus_lib, example_codec
from pipeline.storage import files as storage


def encode(examples: Sequence[corpus_lib.RawExample]) -> bytes:
  """Raw examples as `example_codec` writes them.

  Raises:
    errors.InputError: An example holds something that it does not know.
  """
  for example in examples:
    for name, value in example.items():
      try:
        example_codec.encode(value)
      except TypeError as error:
        raise errors.InputError(
          f'{name} of example {example.get(corpus_lib.ID_KEY)} cannot be kept '
          f'({error}), expected numbers, texts, dates, arrays or lists and '
          'dictionaries of them; leave it out of raw examples'
        ) from error
  return example_codec.encode({str(i): dict(x) for i, x in enumerate(examples)})


def decode(path: str, data: bytes) -> list[corpus_lib.RawExample]:
  """The examples of `encode`; `path` is named in errors.

  Raises:
    storage.DamagedFileError: It is something else.
  """
  try:
    content = example_codec.decode(data)
    numbered = sorted((int(number), value) for number, value in content.items())
  except (ValueError, AttributeError) as error:
    raise storage.DamagedFileError(f'{path} holds no raw examples') from error
  return [value for _, value in numbered]
