"""A made-up translation set: numbers, word by word, in two languages."""

import contextlib
import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

DE = 'null eins zwei drei vier fünf sechs sieben acht neun'
EN = 'zero one two three four five six seven eight nine'
WORDS = {'de': DE.split(' '), 'en': EN.split(' ')}
NUM_TRAIN = 600


class Numbers(tfds.core.GeneratorBasedBuilder):
  """Rows of two to five digits."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      description='Numbers.',
      homepage='https://example.com',
      disable_shuffling=True,
      features=tfds.features.FeaturesDict(
        {language: tfds.features.Text() for language in WORDS}
      ),
    )

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
  with contextlib.redirect_stdout(io.StringIO()):
    Numbers(
      data_dir=str(data_dir), file_format='array_record'
    ).download_and_prepare(
      download_config=tfds.download.DownloadConfig(num_shards=2)
    )
