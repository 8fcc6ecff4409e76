"""Texts as rows of tokens, with what of them counts in the loss."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import json
from typing import Any, NamedTuple

import jinja2
from jinja2 import sandbox
import numpy as np
import tokenizers

from influence_core import errors
from pipeline import RawExample
from pipeline.storage import files as storage, machine_cache

# Of `row`; [tokens] each.
FEATURES = ('tokens', 'targets', 'weights', 'documents', 'positions')


class Columns(NamedTuple):
  """Which columns of a raw example are read.

  Attributes:
    text: what is predicted: a text, or a list of texts.
    prompt: what stands before it; empty for none.
    messages: a conversation in place of the text; empty for none.
  """

  text: str
  prompt: str
  messages: str


class Document(NamedTuple):
  """Tokens that see one another.

  Attributes:
    ids: of the tokens.
    counts: of each, whether its loss counts.
  """

  ids: Sequence[int]
  counts: Sequence[bool]


class _Piece(NamedTuple):
  """Consecutive characters of a document, all of which count or do not."""

  text: str
  counts: bool


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """The tokenizer of a published model.

  Attributes:
    tokenizer: of `tokenizers`.
    end_id: token that ends a text; None to add none.
    template: of conversations; None where the model has none.
    specials: names of special tokens that a template writes, and their texts.
  """

  tokenizer: tokenizers.Tokenizer
  end_id: int | None
  template: jinja2.Template | None
  specials: Mapping[str, str]

  @classmethod
  def load(cls, directory: str, *, add_end: bool) -> 'Tokenizer':
    """That of a directory with tokenizer.json.

    Raises:
      errors.InputError: It is missing or damaged, or has no token for the end.
    """
    path = storage.join(directory, 'tokenizer.json')
    if not storage.exists(path):
      raise errors.InputError(
        f'{path} is missing; save the tokenizer with save_pretrained'
      )
    try:
      tokenizer = tokenizers.Tokenizer.from_file(machine_cache.local_file(path))
    except Exception as error:  # The package raises nothing narrower.
      raise storage.DamagedFileError(
        f'{path} is no tokenizer ({errors.first_line(error)}); write it again'
      ) from error
    content = _read_json(storage.join(directory, 'tokenizer_config.json'))
    specials = {
      name: value['content'] if isinstance(value, Mapping) else value
      for name, value in content.items()
      if name.endswith('_token') and value
    }
    end = specials.get('eos_token', '')
    end_id = tokenizer.token_to_id(end) if add_end else None
    if add_end and end_id is None:
      raise errors.InputError(
        f'{directory} has no eos_token that its tokenizer knows; give '
        '--task_arg add_end=false'
      )
    return cls(tokenizer, end_id, _template(directory, content), specials)

  def text(self, columns: Columns, raw: RawExample) -> str:
    """An example as one text, for people."""
    return '\n'.join(_joined(x) for x in self._texts(columns, raw))

  def documents(self, columns: Columns, raw: RawExample) -> list[Document]:
    """An example as tokens.

    Raises:
      ValueError: A column is missing, or is not what it should be.
    """
    is_rendered = bool(columns.messages)
    return [
      self._document(pieces, is_rendered=is_rendered)
      for pieces in self._texts(columns, raw)
    ]

  def token_texts(self, columns: Columns, raw: RawExample) -> list[str]:
    """The text of each predicted token, as `row` has them.

    That of the first of a document has what stands before it, which is not
    predicted; so texts put together are those of the documents.
    """
    is_rendered = bool(columns.messages)
    found = []
    for pieces in self._texts(columns, raw):
      text = _joined(pieces)
      encoding, has_end = self._encode(text, is_rendered=is_rendered)
      ends = np.maximum.accumulate([end for _, end in encoding.offsets])
      starts = [0, *ends[1:-1]]
      own = [text[a:b] for a, b in zip(starts, ends[1:], strict=False)]
      found += [*own, self.specials['eos_token']] if has_end else own
    return found

  def _encode(
    self, text: str, *, is_rendered: bool
  ) -> tuple[tokenizers.Encoding, bool]:
    """The tokens of a text, and whether its end is to be added."""
    # A template has written all special tokens, the end of the text too.
    found = self.tokenizer.encode(text, add_special_tokens=not is_rendered)
    is_open = self.end_id is not None and found.ids[-1:] != [self.end_id]
    return found, is_open and not is_rendered

  def _document(
    self, pieces: Sequence[_Piece], *, is_rendered: bool
  ) -> Document:
    found, has_end = self._encode(_joined(pieces), is_rendered=is_rendered)
    of_characters = np.repeat(
      [piece.counts for piece in pieces], [len(piece.text) for piece in pieces]
    )
    counts = [bool(of_characters[slice(*x)].any()) for x in found.offsets]
    if not has_end:
      return Document(found.ids, counts)
    assert self.end_id is not None
    return Document([*found.ids, self.end_id], [*counts, True])

  def _texts(self, columns: Columns, raw: RawExample) -> list[list[_Piece]]:
    if columns.messages:
      return [self._conversation(_column(raw, columns.messages))]
    found = _column(raw, columns.text)
    if isinstance(found, str | bytes):
      prompt = _decoded(_column(raw, columns.prompt)) if columns.prompt else ''
      return [[_Piece(prompt, False), _Piece(_decoded(found), True)]]
    return [[_Piece(_decoded(text), True)] for text in found]

  def _conversation(self, messages: Iterable[Any]) -> list[_Piece]:
    """The template's text; what the assistant says counts."""
    spoken = [dict(message) for message in messages]
    pieces: list[_Piece] = []
    for number, message in enumerate(spoken):
      if message.get('role') != 'assistant':
        continue
      before = self._render(spoken[:number], add_generation_prompt=True)
      whole = self._render(spoken[: number + 1])
      said = _joined(pieces)
      if not (whole.startswith(before) and before.startswith(said)):
        raise ValueError(
          'the chat template writes earlier messages in another way when there '
          'are later ones'
        )
      pieces.append(_Piece(before[len(said) :], False))
      pieces.append(_Piece(whole[len(before) :], True))
    return pieces

  def _render(
    self, messages: list[dict[str, Any]], *, add_generation_prompt: bool = False
  ) -> str:
    assert self.template is not None
    try:
      return self.template.render(
        messages=messages,
        add_generation_prompt=add_generation_prompt,
        **self.specials,
      )
    except (jinja2.TemplateError, TypeError) as error:
      raise ValueError(
        f'the chat template refuses it ({errors.first_line(error)})'
      ) from error


def row(
  documents: Sequence[Document], num_tokens: int
) -> dict[str, np.ndarray]:
  """Features of an example: `FEATURES`, one entry for each predicted token.

  Documents count from 1, so that padding belongs to none; positions count from
  the beginning of a document, or of the window of `num_tokens` it goes on in.

  Raises:
    ValueError: No token is predicted.
  """
  if not any(any(one.counts[1:]) for one in documents):
    raise ValueError('it has no token that counts in the loss')
  parts = []
  place = 0
  for number, one in enumerate(documents, 1):
    length = max(0, len(one.ids) - 1)
    places = np.arange(place, place + length)
    begun = np.maximum(place, places // num_tokens * num_tokens)
    parts.append(
      {
        'tokens': np.array(one.ids[:-1], np.int32),
        'targets': np.array(one.ids[1:], np.int32),
        'weights': np.array(one.counts[1:], np.float32),
        'documents': np.full(length, number, np.int32),
        'positions': (places - begun).astype(np.int32),
      }
    )
    place += length
  return {
    name: np.concatenate([part[name] for part in parts]) for name in FEATURES
  }


def _column(raw: RawExample, name: str) -> Any:
  if name not in raw:
    raise ValueError(
      f'it has no column {name!r}, only {", ".join(map(str, raw))}'
    )
  return raw[name]


def _decoded(value: str | bytes) -> str:
  return value.decode() if isinstance(value, bytes) else str(value)


def _joined(pieces: Iterable[_Piece]) -> str:
  return ''.join(piece.text for piece in pieces)


def _read_json(path: str) -> dict[str, Any]:
  if not storage.exists(path):
    return {}
  try:
    return dict(json.loads(storage.read_bytes(path)))
  except (ValueError, TypeError) as error:
    raise storage.DamagedFileError(
      f'{path} is no JSON object ({error}); write it again'
    ) from error


def _template(
  directory: str, content: Mapping[str, Any]
) -> jinja2.Template | None:
  """Of tokenizer_config.json, or of a file of its own."""
  source = content.get('chat_template')
  path = storage.join(directory, 'chat_template.jinja')
  if source is None and storage.exists(path):
    source = storage.read_bytes(path).decode()
  if source is None:
    return None
  # What a template may do is to write text.
  environment = sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=['jinja2.ext.loopcontrols']
  )
  environment.globals['raise_exception'] = _refuse
  environment.filters['tojson'] = lambda x, **how: json.dumps(
    x, ensure_ascii=False, indent=how.get('indent')
  )
  try:
    return environment.from_string(source)
  except jinja2.TemplateError as error:
    raise errors.InputError(
      f'the chat template of {directory} is no Jinja template '
      f'({errors.first_line(error)}); correct it'
    ) from error


def _refuse(message: str) -> None:
  raise jinja2.TemplateError(message)
