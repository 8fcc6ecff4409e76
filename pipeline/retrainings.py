"""Losses of queries after training on random parts of a corpus, in files.

    DIRECTORY/<fingerprint>-<number>.json

Each is computed once, however often it is asked for, and an interrupted run
goes on with the missing ones. The fingerprint covers model, data and queries.
"""

from collections.abc import Sequence
import concurrent.futures
import dataclasses

import jax
import numpy as np

from influence_core import errors, types
from pipeline import (
  checked_files,
  corpus,
  fingerprints,
  loaded_task,
  storage,
)


@dataclasses.dataclass(frozen=True)
class Design:
  """Which parts of the corpus are trained on.

  Attributes:
    num_subsets: different parts.
    fraction: of the corpus in each.
    num_repeats: trainings on each, with other seeds, whose losses are averaged.
    seed: of the choice.
  """

  num_subsets: int
  fraction: float
  num_repeats: int
  seed: int

  def __post_init__(self):
    for name in ('num_subsets', 'num_repeats'):
      if getattr(self, name) < 1:
        raise errors.InputError(
          f'{name} is {getattr(self, name)}, expected at least 1'
        )
    if not 0 < self.fraction < 1:
      raise errors.InputError(
        f'fraction is {self.fraction}, expected more than 0 and less than 1'
      )

  def subset(self, number: int, num_examples: int) -> np.ndarray:
    """[round(fraction * num_examples)] positions of a part, sorted."""
    generator = np.random.default_rng([self.seed, number])
    count = round(self.fraction * num_examples)
    return np.sort(generator.choice(num_examples, count, replace=False))


def losses(
  loaded: loaded_task.LoadedTask,
  queries: loaded_task.ExampleBatch,
  design: Design,
  directory: str,
  *,
  num_workers: int,
  progress: types.ProgressCallback = types.no_progress,
) -> np.ndarray:
  """Trains on every part and evaluates the queries.

  Args:
    loaded: the task; it must have `retrain`.
    queries: what the losses are of.
    design: which parts.
    directory: where losses are kept.
    num_workers: trainings at a time, in threads of this process.
    progress: called with trainings done and in all.

  Returns:
    [num_subsets, num_queries] float64.

  Raises:
    errors.InputError: The task cannot be trained again.
  """
  retrain = loaded.task.retrain
  if retrain is None:
    raise errors.InputError(
      f'task {loaded.task.name} has no retrain; add it to the task'
    )
  ids = all_ids(loaded.task.corpus)
  known = fingerprints.of_json(
    [dict(loaded.fingerprints), ids, queries.ids, dataclasses.asdict(design)]
  )
  evaluate = jax.jit(loaded.task.per_example_loss)

  def compute(job: tuple[int, int]) -> list[float]:
    number, repeat = job
    path = storage.join(directory, f'{known}-{number:04d}-{repeat}.json')
    if not storage.exists(path):
      chosen = design.subset(number, len(ids))
      params = retrain(
        frozenset(ids[position] for position in chosen),
        number * design.num_repeats + repeat,
      )
      found = np.asarray(evaluate(params, queries.features), np.float64)
      content = {'losses': found.tolist()}
      storage.create_exclusive(path, checked_files.encode_json(content))
    return checked_files.read_json(path)['losses']

  jobs = [
    (number, repeat)
    for number in range(design.num_subsets)
    for repeat in range(design.num_repeats)
  ]
  rows = []
  with concurrent.futures.ThreadPoolExecutor(num_workers) as pool:
    for row in pool.map(compute, jobs):
      rows.append(row)
      progress(len(rows), len(jobs))
  shape = (design.num_subsets, design.num_repeats, len(queries.ids))
  return np.reshape(rows, shape).mean(axis=1)


def all_ids(data: corpus.TfdsCorpus) -> list[str]:
  """Ids of a corpus, in its order."""
  return [
    f'{shard.name}__{record}'
    for shard in data.source_shards()
    for record in range(shard.start, shard.stop)
  ]


def influence_of_subsets(
  scores: np.ndarray,
  example_ids: Sequence[str],
  ids: Sequence[str],
  design: Design,
) -> np.ndarray:
  """Sum of the influence of each part on each query.

  Args:
    scores: [num_queries, num_rows] influence.
    example_ids: [num_rows] of the rows.
    ids: of the whole corpus.
    design: which parts.

  Returns:
    [num_subsets, num_queries] float64.
  """
  places = {example_id: number for number, example_id in enumerate(example_ids)}
  total = np.zeros((design.num_subsets, len(scores)))
  for number in range(design.num_subsets):
    chosen = [
      places[ids[position]]
      for position in design.subset(number, len(ids))
      if ids[position] in places  # Rejected examples have no score.
    ]
    total[number] = scores[:, chosen].sum(axis=1, dtype=np.float64)
  return total
