"""A folder of images, with a folder for each class or a table of labels."""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import io
import posixpath

import numpy as np
import PIL
from PIL import Image

from influence_core import errors
from pipeline.corpora import file_names, image_labels, splits
from pipeline.corpora.corpus import (
  Corpus,
  RawExample,
  SourceShard,
  UndecodableExample,
)
from pipeline.storage import file_identity, files as storage, fingerprints

_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.gif', '.webp')
# The source shard of images that are in no folder.
_NO_FOLDER = 'images'


@dataclasses.dataclass(frozen=True)
class ImageFolderCorpus(Corpus):
  """Images by class, PATH/cat/1.png or PATH/train/cat/1.png, or with a table.

  An example has `image`, [height, width, channels] uint8 of 1 channel for grey
  and 3 for all others; and `file`, its place in the folder. By class, it has
  `label`, the number of the class in the order of all classes' names, and
  `class`, its name. With a table, it has the columns of its row instead. All
  images of a folder are a source shard, and so are their rows: an image without
  row, or a row without image, is an example that cannot be read.

  Attributes:
    path: of the folder, local or gs://.
    split: as in TFDS; 'train' where folders say none.
    labels: a table with a column `file_name`, of any kind that `FileCorpus`
      reads but arrays; its path, or the name of those in the folder, such as
      `metadata.csv`. Names of files begin at the folder of the table where it
      is inside `path`, else at `path`. Empty for images by class.
  """

  path: str
  split: str = file_names.ONLY_SPLIT
  labels: str = ''

  def with_split(self, split: str) -> 'ImageFolderCorpus':
    return dataclasses.replace(self, split=split)

  @functools.cached_property
  def _places(self) -> list[str]:
    """Those of all files in the folder."""
    return list(file_identity.tree(self.path))

  @functools.cached_property
  def _labels(self) -> image_labels.ImageLabels | None:
    if not self.labels:
      return None
    return image_labels.ImageLabels(
      image_labels.find_tables(self.path, self.labels, self._places)
    )

  @functools.cached_property
  def _groups(self) -> dict[str, list[str]]:
    """Places of images, and of rows without image, by source shard.

    Raises:
      errors.InputError: There are none, or two folders of the same name.
    """
    images = {x for x in self._places if _is_image(x)}
    named = {*self._labels.rows} if self._labels else set()
    if self._labels and not named & {*self._places}:
      raise errors.InputError(
        f'{self.labels} names none of the files of {self.path}, but '
        f'{next(iter(sorted(named)), "nothing")}, expected places such as '
        f'{next(iter(sorted(images)), "cat/1.png")}; correct the column '
        f'{image_labels.FILE_COLUMN}'
      )
    groups: dict[str, list[str]] = {}
    for place in sorted(images | named):
      folder = posixpath.dirname(place)
      if folder or self._labels:
        groups.setdefault(folder, []).append(place)
    if not groups:
      raise errors.InputError(
        f'{self.path} has no folder of images, expected one for each class, '
        f'with {", ".join(_SUFFIXES)}; or give a table as labels'
      )
    named_groups = {_shard_of(folder): own for folder, own in groups.items()}
    if len(named_groups) < len(groups):
      raise errors.InputError(
        f'{self.path} has folders whose places differ only in / and ., '
        'expected others; rename them'
      )
    return named_groups

  @functools.cached_property
  def _classes(self) -> list[str]:
    return sorted({_class_of(group[0]) for group in self._groups.values()})

  @functools.cached_property
  def _shards(self) -> list[SourceShard]:
    files: dict[str, list[tuple[str, int]]] = {}
    for shard, group in self._groups.items():
      split = file_names.split_of(f'{posixpath.dirname(group[0])}/-')
      files.setdefault(split, []).append((shard, len(group)))
    return splits.choose(files, self.split, of=self.path)

  def source_shards(self) -> list[SourceShard]:
    return self._shards

  def shard_fingerprint(self, name: str) -> str:
    """Of all images of a folder and their rows, which are listed anew."""
    folder = posixpath.dirname(self._groups[name][0])
    rows = self._labels.fingerprints(folder) if self._labels else {}
    place = storage.join(self.path, folder) if folder else self.path
    found = [
      [posixpath.join(folder, x), identity.fingerprint]
      for x, identity in file_identity.tree(place).items()
      if '/' not in x
    ]
    images = [x for x in found if _is_image(x[0]) or x[0] in rows]
    return fingerprints.of_json([images, rows] if self._labels else images)

  def read_records(
    self, name: str, records: Sequence[int]
  ) -> Iterator[RawExample | UndecodableExample]:
    """One by one, since images are large."""
    places = [self._groups[name][record] for record in records]
    if self._labels:
      for place, row in zip(places, self._labels.read(places), strict=True):
        if not isinstance(row, UndecodableExample):
          row = self._read_image(place, row)
        yield row
    else:
      for place in places:
        yield self._read_image(place, self._class_columns(place))

  def _class_columns(self, place: str) -> RawExample:
    name = _class_of(place)
    return {'label': self._classes.index(name), 'class': name}

  def _read_image(
    self, place: str, columns: RawExample
  ) -> RawExample | UndecodableExample:
    try:
      data = storage.read_bytes(storage.join(self.path, place))
    except (OSError, storage.DamagedFileError) as error:
      return UndecodableExample(f'{place}: {errors.first_line(error)}')
    try:
      with Image.open(io.BytesIO(data)) as image:
        mode = 'L' if image.mode in ('1', 'L') else 'RGB'
        pixels = np.atleast_3d(np.asarray(image.convert(mode)))
    except PIL.UnidentifiedImageError:
      return UndecodableExample(f'{place}: no image of a format that is read')
    except Exception as error:  # Decoders raise whatever their format does.
      return UndecodableExample(f'{place}: {errors.first_line(error)}')
    own = {x: y for x, y in columns.items() if x != image_labels.FILE_COLUMN}
    return {'image': pixels, **own, 'file': place}


def _is_image(place: str) -> bool:
  return place.lower().endswith(_SUFFIXES)


def _class_of(place: str) -> str:
  return place.split('/')[-2]


def _shard_of(folder: str) -> str:
  return folder.replace('/', '.') or _NO_FOLDER
