"""Tasks whose work is reading: a loss of next to nothing on real input.

Images are digits as PNG in ArrayRecord, or photographs' size as JPEG; texts are
given to a tokenizer.
"""

import functools
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageFilter
import tokenizers

from pipeline import Corpus, FileCorpus, ImageFolderCorpus, Task, TfdsCorpus

_SIDE = 224
_NUM_WORDS = 120
_LONGEST = 256
# Pictures and texts that files hold again and again: decoding does not know.
_NUM_DIFFERENT = 64


def digits(data_dir: str, split: str = 'train') -> Task:
  """MNIST as TFDS stores it."""
  return _of_images(TfdsCorpus('mnist', split, data_dir), 'digits')


def photographs(path: str, split: str = 'train') -> Task:
  """JPEG files of 224 pixels, by `write_photographs`."""
  return _of_images(ImageFolderCorpus(path, split), 'photographs')


def texts(path: str, split: str = 'train') -> Task:
  """Lines of 120 words, by `write_texts`."""

  @functools.cache
  def tokenizer():
    return tokenizers.Tokenizer.from_file(f'{path}.tokenizer.json')

  def preprocess(raw):
    ids = tokenizer().encode(raw['text']).ids[:_LONGEST]
    return {'tokens': np.pad(np.array(ids, np.int32), (0, _LONGEST - len(ids)))}

  return Task(
    name='texts',
    load_parameters=lambda: {'w': np.zeros((), np.float32)},
    per_example_loss=lambda params, f: params['w'] * jnp.mean(f['tokens'], 1),
    corpus=FileCorpus(path, split),
    preprocess=preprocess,
  )


def _of_images(corpus: Corpus, name: str) -> Task:
  return Task(
    name=name,
    load_parameters=lambda: {'w': np.zeros((), np.float32)},
    per_example_loss=lambda params, f: (
      params['w'] * jnp.mean(f['image'], (1, 2, 3))
    ),
    corpus=corpus,
    preprocess=lambda raw: {
      'image': np.asarray(raw['image'], np.float32) / 255,
    },
    row_columns=lambda raw: {'label': int(raw['label'])},
  )


def write_photographs(path: Path, num_examples: int) -> None:
  """Smooth noise, which takes as long to decode as other pictures."""
  generator = np.random.default_rng(0)
  folder = path / 'train' / 'class'
  folder.mkdir(parents=True)
  files = []
  for _ in range(_NUM_DIFFERENT):
    pixels = generator.integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
    picture = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2))
    files.append(folder / 'one.jpg')
    picture.save(files[-1], quality=90)
    files[-1] = files[-1].read_bytes()
  (folder / 'one.jpg').unlink()
  for number in range(num_examples):
    file = folder / f'{number:06d}.jpg'
    file.write_bytes(files[number % _NUM_DIFFERENT])


def write_texts(path: Path, num_examples: int) -> None:
  """Lines of made-up words, and a tokenizer trained on them."""
  generator = np.random.default_rng(0)
  letters = np.array(list('abcdefghijklmnoprstuvw'))
  words = [
    ''.join(generator.choice(letters, generator.integers(2, 9)))
    for _ in range(5000)
  ]
  lines = [
    ' '.join(generator.choice(words, _NUM_WORDS)) for _ in range(_NUM_DIFFERENT)
  ]
  tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token='?'))
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=4000, special_tokens=['?'], show_progress=False
  )
  tokenizer.train_from_iterator(lines, trainer)
  tokenizer.save(f'{path}.tokenizer.json')
  with path.open('w') as file:
    for number in range(num_examples):
      file.write(json.dumps({'text': lines[number % _NUM_DIFFERENT]}) + '\n')
