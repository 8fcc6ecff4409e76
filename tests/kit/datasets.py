"""Made-up datasets of TFDS, written as ArrayRecord."""

from collections.abc import Mapping
import contextlib
import io
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds


class MadeUpDataset(tfds.core.GeneratorBasedBuilder):
  """Splits and examples are those of a class that inherits from this one."""

  VERSION = tfds.core.Version('1.0.0')
  FEATURES: ClassVar[Mapping[str, Any]]

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      description=f'{type(self).__doc__}',
      homepage='https://example.com',
      disable_shuffling=True,
      features=tfds.features.FeaturesDict(dict(self.FEATURES)),
    )


def prepare(
  dataset: type[MadeUpDataset], data_dir: Path, num_files: int | None = None
) -> None:
  """Writes a dataset, each split in so many files; None for one."""
  with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces itself.
    dataset(
      data_dir=str(data_dir), file_format='array_record'
    ).download_and_prepare(
      download_config=tfds.download.DownloadConfig(num_shards=num_files)
    )
