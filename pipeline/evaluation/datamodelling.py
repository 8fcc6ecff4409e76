"""The linear datamodelling score: does influence predict what retraining does?

Of each query, the rank correlation over random parts of the corpus between the
influence of a part, summed over its examples, and the loss after training on
that part alone.

References:
  Park et al., "TRAK: Attributing Model Behavior at Scale", ICML 2023,
  definition 2.3.
"""

import numpy as np

from influence_core import types
from influence_core.scores import evaluation
from influence_core.scores.options import ScoreOptions
from pipeline.evaluation import baselines, retrainings
from pipeline.evaluation.options import Baseline, Design, Retraining
from pipeline.index import members as members_lib
from pipeline.search.query_session import QuerySession
from pipeline.tasks import loaded_task, queries as query_lib


class Datamodelling:
  """Queries and parts of a corpus, which indexes are measured by."""

  def __init__(
    self,
    loaded: loaded_task.LoadedTask,
    query_split: str,
    design: Design,
  ):
    """Reads the queries and draws the parts.

    Args:
      loaded: the task that is trained again.
      query_split: TFDS split.
      design: of the parts.

    Raises:
      errors.InputError: A query cannot be used.
    """
    self._loaded = loaded
    self._query_split = query_split
    self._batch = query_lib.read(loaded, query_split)
    ids = retrainings.all_ids(loaded.task.corpus)
    self._parts = retrainings.draw_parts(design, ids)

  @property
  def query_ids(self) -> list[str]:
    return self._batch.ids

  def predicted(
    self,
    session: QuerySession,
    options: ScoreOptions,
    *,
    progress: types.ProgressCallback = types.no_progress,
  ) -> np.ndarray:
    """[num_parts, num_queries] float64 losses that an index predicts."""
    session.index.check_examples('evaluate lds')
    queries = session.project(self._query_split)
    scores, ids = session.scores(queries, options, progress=progress)
    return self.losses_by(scores, ids)

  def predicted_by_baseline(
    self,
    name: Baseline,
    index: members_lib.Searched,
    *,
    progress: types.ProgressCallback = types.no_progress,
  ) -> np.ndarray:
    """The same by a baseline, for the examples of an index."""
    scores, ids = baselines.scores(
      name, index, self._loaded, self._query_split, progress=progress
    )
    return self.losses_by(scores, ids)

  def losses_by(self, scores: np.ndarray, ids: list[str]) -> np.ndarray:
    """Up to a constant: proponents in a part lower the loss."""
    return -retrainings.influence_of_parts(scores, ids, self._parts)

  def actual(
    self,
    directory: str,
    retraining: Retraining,
    *,
    progress: types.ProgressCallback = types.no_progress,
  ) -> np.ndarray:
    """[num_parts, num_repeats, num_queries], see `retrainings.losses`."""
    return retrainings.losses(
      self._loaded,
      self._batch,
      self._parts,
      directory,
      retraining,
      progress=progress,
    )


def scores(predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
  """Correlations of predicted losses with means over the repeats.

  Args:
    predicted: [num_parts, num_queries].
    actual: [num_parts, num_repeats, num_queries].

  Returns:
    [num_queries] float64 Spearman correlations over the parts.
  """
  return evaluation.spearman_correlations(predicted, actual.mean(axis=1))
