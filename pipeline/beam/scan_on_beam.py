"""The scan of an index on a Beam runner, for many queries or remote indexes.

    Create(shard numbers) | Reshuffle | ParDo(scan) | CombineGlobally(merge)
      | ParDo(store)

Queries go to the workers through a file, leaders come back as arrays, and what
was found is stored as another file, since a runner may be far away.
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import functools
import json
import uuid

import apache_beam as beam
from apache_beam.options import pipeline_options
import numpy as np

from influence_core import types
from influence_core.scores import top_k
from influence_core.scores.options import ScoreOptions
from pipeline.beam import runner_options as runner_options_lib
from pipeline.index import ensemble, members as members_lib, reader
from pipeline.search import scan as scan_lib, selection as selection_lib
from pipeline.storage import array_bytes, files as storage

# Shards of an element: leaders are merged within it before they travel.
_SHARDS_PER_ELEMENT = 16


@dataclasses.dataclass(frozen=True)
class SearchSettings:
  """Paths and small settings: all that travels to the workers.

  Attributes:
    indexes: paths of the indexes whose scores are added.
    generations: of each, the one to search.
    scales: what the scores of each are multiplied by.
    queries: path of the file with the queries.
    result: path of the file for the leaders.
    k: examples wanted at each end.
    options: how to score.
    selection: which examples can be found.
    upper_bounds: what leaders are by, see `scan.scan`.
  """

  indexes: tuple[str, ...]
  generations: tuple[int, ...]
  scales: tuple[float, ...]
  queries: str
  result: str
  k: int
  options: ScoreOptions
  selection: selection_lib.Selection
  upper_bounds: bool


class ScanShards(beam.DoFn):
  """Leaders among some shards."""

  def __init__(self, settings: SearchSettings):
    self._settings = settings

  def setup(self) -> None:
    settings = self._settings
    self._index = ensemble.Ensemble(
      list(map(reader.Index, settings.indexes, settings.generations)),
      settings.scales,
    )
    self._queries = array_bytes.read_npz(settings.queries)['queries']

  def process(
    self, element: list[int]
  ) -> Iterator[dict[object, scan_lib.Leading]]:
    settings = self._settings
    yield scan_lib.scan(
      self._index,
      self._queries,
      k=settings.k,
      options=settings.options,
      selection=settings.selection,
      shard_numbers=element,
      upper_bounds=settings.upper_bounds,
    )


class MergeLeaders(beam.CombineFn):
  """Leaders among all shards."""

  def __init__(self, k: int, selection: selection_lib.Selection):
    self._k = k
    self._selection = selection

  def create_accumulator(self) -> dict[object, scan_lib.Leading]:
    return {}

  def add_input(self, accumulator, element):
    return self.merge_accumulators([accumulator, element])

  def merge_accumulators(
    self, accumulators: Iterable[dict[object, scan_lib.Leading]]
  ) -> dict[object, scan_lib.Leading]:
    return scan_lib.merge(accumulators, k=self._k, selection=self._selection)

  def extract_output(self, accumulator):
    return accumulator


class StoreLeaders(beam.DoFn):
  """Writes the leaders to the file that the submitter waits for."""

  def __init__(self, path: str):
    self._path = path

  def process(self, element: dict[object, scan_lib.Leading]) -> Iterator[str]:
    values = list(element)
    arrays = {
      f'{number}/{end}/{name}': getattr(getattr(element[value], end), name)
      for number, value in enumerate(values)
      for end in _ENDS
      for name in ('scores', 'positions')
    }
    # Of several attempts the first stays; all of them say the same.
    storage.create_exclusive(
      self._path,
      array_bytes.encode_npz(
        {'values': np.array(json.dumps(values)), **arrays}
      ),
    )
    yield self._path


_ENDS = ('highest', 'lowest', 'own')


def scan(
  index: members_lib.Searched,
  query_projections: np.ndarray,
  *,
  k: int,
  options: ScoreOptions,
  selection: selection_lib.Selection,
  runner_options: pipeline_options.PipelineOptions,
  upper_bounds: bool = False,
  progress: types.ProgressCallback = types.no_progress,
) -> dict[object, scan_lib.Leading]:
  """What `scan.scan` gives for all shards, computed on the chosen Beam runner.

  Queries and leaders are kept in the directory of the first index meanwhile.
  Progress is the runner's to tell.
  """
  del progress
  scan_lib.check(index, query_projections, k, selection)
  first = index.members[0].index
  directory = storage.join(first.path, f'searches/{uuid.uuid4().hex}')
  settings = SearchSettings(
    indexes=tuple(x.index.path for x in index.members),
    generations=tuple(x.index.generation for x in index.members),
    scales=tuple(x.scale for x in index.members),
    queries=storage.join(directory, 'queries.npz'),
    result=storage.join(directory, 'leaders.npz'),
    k=k,
    options=options,
    # The ids of the queries are needed at the end only.
    selection=dataclasses.replace(
      selection, excluded_ids=selection.excluded_ids and ()
    ),
    upper_bounds=upper_bounds,
  )
  storage.create_exclusive(
    settings.queries, array_bytes.encode_npz({'queries': query_projections})
  )
  try:
    with runner_options_lib.begin_pipeline(runner_options) as root:
      build_pipeline(root, len(first.manifest.shards), settings)
    return _load_leaders(settings.result)
  finally:
    storage.remove_directory(directory)


def on_runner(
  runner_options: pipeline_options.PipelineOptions,
) -> Callable[..., dict[object, scan_lib.Leading]]:
  """`scan` on a Beam runner, to be called like `search.scan.scan`."""
  return functools.partial(scan, runner_options=runner_options)


def build_pipeline(
  root: beam.Pipeline, num_shards: int, settings: SearchSettings
) -> beam.PCollection:
  """Attaches a search to a Beam pipeline."""
  numbers = list(range(num_shards))
  return (
    root
    | 'Shards'
    >> beam.Create(
      [
        numbers[start : start + _SHARDS_PER_ELEMENT]
        for start in range(0, num_shards, _SHARDS_PER_ELEMENT)
      ]
    )
    | 'Spread' >> beam.Reshuffle()
    | 'Scan' >> beam.ParDo(ScanShards(settings))
    | 'Merge'
    >> beam.CombineGlobally(
      MergeLeaders(settings.k, settings.selection)
    ).without_defaults()
    | 'Store' >> beam.ParDo(StoreLeaders(settings.result))
  )


def _load_leaders(path: str) -> dict[object, scan_lib.Leading]:
  arrays = array_bytes.read_npz(path)
  return {
    value: scan_lib.Leading(
      *(
        top_k.Leaders(
          arrays[f'{number}/{end}/scores'], arrays[f'{number}/{end}/positions']
        )
        for end in _ENDS
      )
    )
    for number, value in enumerate(json.loads(str(arrays['values'])))
  }
