"""Losses of queries after training on random parts of a corpus, in files.

Where a task has a measurement, it takes the place of the loss.

    DIRECTORY/<fingerprint>-<repeat>.json

Each has the losses of queries by id. A part is trained on once for each repeat,
however often losses are asked for, unless some are of other queries; a run that
was interrupted, or is of more parts or repeats, goes on with those that are
missing. The fingerprint covers model and part.
"""

from collections.abc import Callable, Sequence
import concurrent.futures

import jax
import numpy as np

from influence_core import errors, types, user_code
from pipeline.corpora.corpus import Corpus, id_of
from pipeline.evaluation.options import Design, Retraining
from pipeline.storage import (
  checked_files,
  files as storage,
  fingerprints,
  stored_objects,
)
from pipeline.tasks import example_batches, loaded_task, task as task_lib

# Ids of training examples.
Part = frozenset[str]


def check(task: task_lib.Task) -> Callable[[Part, int], types.Params]:
  """How a task is trained again; to be asked before any work for it.

  Raises:
    errors.InputError: It cannot be.
  """
  if task.retrain is None:
    raise errors.InputError(
      f'task {task.name} has no retrain; add it to the task'
    )
  return task.retrain


def draw_parts(design: Design, ids: Sequence[str]) -> list[Part]:
  """The parts of a design, of round(fraction * num_examples) examples each."""
  count = round(design.fraction * len(ids))
  parts = []
  for number in range(design.num_subsets):
    generator = np.random.default_rng([design.seed, number])
    chosen = generator.choice(len(ids), count, replace=False)
    parts.append(frozenset(ids[position] for position in chosen))
  return parts


def losses(
  loaded: loaded_task.LoadedTask,
  queries: example_batches.ExampleBatch,
  parts: Sequence[Part],
  directory: str,
  retraining: Retraining,
  *,
  progress: types.ProgressCallback = types.no_progress,
) -> np.ndarray:
  """Trains on every part and evaluates the queries.

  Args:
    loaded: the task; it must have `retrain`.
    queries: what the losses are of.
    parts: what is trained on.
    directory: where losses are kept.
    retraining: how often, and how many at a time, in threads of this process.
    progress: called with trainings done and in all.

  Returns:
    [num_parts, num_repeats, num_queries] float64.

  Raises:
    errors.InputError: The task cannot be trained again.
  """
  name = loaded.task.name
  retrain, num_repeats = check(loaded.task), retraining.num_repeats
  known = dict(loaded.fingerprints)
  if loaded.task.measurement:
    known['asked'] = 'measurement'
  asked = loaded.measuring().task.per_example_loss
  evaluate = jax.jit(asked)

  def compute(job: tuple[Part, int]) -> list[float]:
    part, repeat = job
    key = fingerprints.of_json([known, sorted(part)])
    path = storage.join(directory, f'{key}-{repeat}.json')
    found: dict[str, float] = {}
    if storage.exists(path):
      kept = checked_files.read_json(path)
      found = stored_objects.parse(dict[str, float], kept, path)
    if not found.keys() >= set(queries.ids):
      with user_code.user_errors(f'retrain of task {name}', retrain):
        params = retrain(part, repeat)
      with user_code.user_errors(
        f'per_example_loss of what retrain of task {name} gave', asked
      ):
        new = np.asarray(evaluate(params, queries.features), np.float64)
      found |= zip(queries.ids, new.tolist(), strict=True)
      with storage.open_for_writing(path) as file:
        file.write(checked_files.encode_json(found))
    return [found[query_id] for query_id in queries.ids]

  places = {part: place for place, part in enumerate(dict.fromkeys(parts))}
  jobs = [(part, repeat) for part in places for repeat in range(num_repeats)]
  rows = []
  with concurrent.futures.ThreadPoolExecutor(retraining.num_workers) as pool:
    for row in pool.map(compute, jobs):
      rows.append(row)
      progress(len(rows), len(jobs))
  found = np.reshape(rows, (len(places), num_repeats, len(queries.ids)))
  return found[[places[part] for part in parts]]


def all_ids(data: Corpus) -> list[str]:
  """Ids of a corpus, in its order."""
  return [
    id_of(shard.name, record)
    for shard in data.source_shards()
    for record in range(shard.start, shard.stop)
  ]


def influence_of_parts(
  scores: np.ndarray, example_ids: Sequence[str], parts: Sequence[Part]
) -> np.ndarray:
  """Sum of the influence of each part on each query.

  Args:
    scores: [num_queries, num_rows] influence.
    example_ids: [num_rows] of the rows.
    parts: which; rejected examples have no score.

  Returns:
    [num_parts, num_queries] float64.
  """
  is_in = np.array([[x in part for x in example_ids] for part in parts])
  return is_in.astype(np.float64) @ scores.T.astype(np.float64)
