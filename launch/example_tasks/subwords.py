"""Subword vocabularies trained on a corpus, and texts as rows of tokens."""

from collections.abc import Iterable, Sequence
import itertools
import json

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from launch.example_tasks.transformer import PAD_ID
from pipeline.storage import checked_files, files as storage

END_ID = 1
_SPECIAL = ('<pad>', '<end>')


class Vocabulary:
  """Byte-pair encoding: any text has tokens, and comes back from them."""

  def __init__(self, tokenizer: tokenizers.Tokenizer):
    self._tokenizer = tokenizer

  @classmethod
  def train(cls, texts: Iterable[str], size: int) -> 'Vocabulary':
    """Learns up to `size` subwords from texts."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
      vocab_size=size,
      special_tokens=list(_SPECIAL),
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return cls(tokenizer)

  @classmethod
  def load(cls, path: str) -> 'Vocabulary':
    """Reads one that was saved.

    Raises:
      storage.DamagedFileError: It is missing or altered.
    """
    content = checked_files.read_json(path)['tokenizer']
    return cls(tokenizers.Tokenizer.from_str(content))

  def save(self, path: str) -> None:
    content = {'tokenizer': self._tokenizer.to_str()}
    with storage.open_for_writing(path) as file:
      file.write(checked_files.encode_json(content))

  def publish(self, directory: str) -> None:
    """Writes it as published models have theirs."""
    described = json.dumps({'eos_token': _SPECIAL[END_ID]})
    for name, text in (
      ('tokenizer.json', self._tokenizer.to_str()),
      ('tokenizer_config.json', described),
    ):
      with storage.open_for_writing(storage.join(directory, name)) as file:
        file.write(text.encode())

  @property
  def size(self) -> int:
    return self._tokenizer.get_vocab_size()

  def row(self, text: str, num_tokens: int) -> np.ndarray:
    """[num_tokens] int32: the text, its end, padding; cut where too long."""
    return _row(self._tokenizer.encode(text).ids, num_tokens)

  def token_texts(self, text: str, num_tokens: int) -> list[str]:
    """The text of each token of `row`, up to its end."""
    ends = [end for _, end in self._tokenizer.encode(text).offsets]
    edges = itertools.pairwise([0, *ends[: num_tokens - 1]])
    return [*(text[slice(*edge)] for edge in edges), _SPECIAL[END_ID]]

  def text(self, row: Sequence[int]) -> str:
    """The text of tokens up to the first end."""
    ids = list(row)
    if END_ID in ids:
      ids = ids[: ids.index(END_ID)]
    return self._tokenizer.decode([int(x) for x in ids]).strip()


class Bytes:
  """The bytes of a text as its tokens, after padding and end."""

  size = len(_SPECIAL) + 256

  def row(self, text: str, num_tokens: int) -> np.ndarray:
    """[num_tokens] int32: the text, its end, padding; cut where too long."""
    return _row([len(_SPECIAL) + x for x in text.encode()], num_tokens)

  def token_texts(self, text: str, num_tokens: int) -> list[str]:
    """The text of each token of `row`: a character stands at its first."""
    texts = [x for c in text for x in (c, *[''] * (len(c.encode()) - 1))]
    return [*texts[: num_tokens - 1], _SPECIAL[END_ID]]


def _row(ids: Sequence[int], num_tokens: int) -> np.ndarray:
  ids = ids[: num_tokens - 1]
  row = np.full(num_tokens, PAD_ID, np.int32)
  row[: len(ids)] = ids
  row[len(ids)] = END_ID
  return row
