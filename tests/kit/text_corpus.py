"""A made-up translation set: numbers, word by word, in two languages."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tests.kit import datasets

DE = 'null eins zwei drei vier fünf sechs sieben acht neun'
EN = 'zero one two three four five six seven eight nine'
WORDS = {'de': DE.split(' '), 'en': EN.split(' ')}
NUM_TRAIN = 600


class Numbers(datasets.MadeUpDataset):
  """Rows of two to five digits."""

  FEATURES: ClassVar = {language: tfds.features.Text() for language in WORDS}

  def _split_generators(self, dl_manager):
    return {
      'train': self._generate_examples(NUM_TRAIN, seed=0),
      'test': self._generate_examples(40, seed=1),
    }

  def _generate_examples(self, count, seed):
    generator = np.random.default_rng(seed)
    for key in range(count):
      digits = generator.integers(10, size=generator.integers(2, 6))
      yield (
        key,
        {
          language: ' '.join(words[digit] for digit in digits)
          for language, words in WORDS.items()
        },
      )


def prepare(data_dir: Path) -> None:
  datasets.prepare(Numbers, data_dir, 2)
