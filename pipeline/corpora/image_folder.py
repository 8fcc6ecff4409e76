"""A folder of images, with a folder for each class."""

from collections.abc import Sequence
import dataclasses
import functools
import io

import numpy as np
from PIL import Image

from influence_core import errors
from pipeline.corpora import file_names, splits
from pipeline.corpora.corpus import (
  Corpus,
  RawExample,
  SourceShard,
  UndecodableExample,
)
from pipeline.storage import file_identity, files as storage, fingerprints

_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.gif', '.webp')


@dataclasses.dataclass(frozen=True)
class ImageFolderCorpus(Corpus):
  """Images by class: PATH/cat/1.png, or PATH/train/cat/1.png.

  An example has `image`, [height, width, channels] uint8 of 1 channel for grey
  and 3 for all others; `label`, the number of the class in the order of all
  classes' names; `class`, its name; and `file`, its place in the folder. All
  images of a class in a split are a source shard.

  Attributes:
    path: of the folder, local or gs://.
    split: as in TFDS; 'train' where folders say none.
  """

  path: str
  split: str = file_names.ONLY_SPLIT

  def with_split(self, split: str) -> 'ImageFolderCorpus':
    return dataclasses.replace(self, split=split)

  @functools.cached_property
  def _groups(self) -> dict[str, list[tuple[str, str]]]:
    """(place in the folder, fingerprint) of each image, by source shard.

    Raises:
      errors.InputError: There are none.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, identity in file_identity.tree(self.path).items():
      folder, _, _ = name.rpartition('/')
      if folder and name.lower().endswith(_SUFFIXES):
        image = name, identity.fingerprint
        groups.setdefault(folder.replace('/', '.'), []).append(image)
    if not groups:
      raise errors.InputError(
        f'{self.path} has no folder of images, expected one for each class, '
        f'with {", ".join(_SUFFIXES)}'
      )
    return groups

  @functools.cached_property
  def _classes(self) -> list[str]:
    names = (group[0][0].split('/')[-2] for group in self._groups.values())
    return sorted({*names})

  @functools.cached_property
  def _shards(self) -> list[SourceShard]:
    files: dict[str, list[tuple[str, int]]] = {}
    for shard, group in self._groups.items():
      split = file_names.split_of(f'{group[0][0].rpartition("/")[0]}/-')
      files.setdefault(split, []).append((shard, len(group)))
    return splits.choose(files, self.split, of=self.path)

  def source_shards(self) -> list[SourceShard]:
    return self._shards

  def shard_fingerprint(self, name: str) -> str:
    """Of all images of a class, from one listing, which is made anew."""
    folder = self._groups[name][0][0].rpartition('/')[0]
    found = file_identity.tree(storage.join(self.path, folder))
    return fingerprints.of_json(
      [[x, identity.fingerprint] for x, identity in found.items()]
    )

  def read_records(
    self, name: str, records: Sequence[int]
  ) -> Sequence[RawExample | UndecodableExample]:
    return [self._read(self._groups[name][record][0]) for record in records]

  def _read(self, name: str) -> RawExample | UndecodableExample:
    try:
      data = storage.read_bytes(storage.join(self.path, name))
      with Image.open(io.BytesIO(data)) as image:
        mode = 'L' if image.mode in ('1', 'L') else 'RGB'
        pixels = np.atleast_3d(np.asarray(image.convert(mode)))
    except (OSError, ValueError, storage.DamagedFileError) as error:
      return UndecodableExample(f'{name}: {error}')
    of_class = name.split('/')[-2]
    return {
      'image': pixels,
      'label': self._classes.index(of_class),
      'class': of_class,
      'file': name,
    }
