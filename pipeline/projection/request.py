"""What is asked of a projection; it takes no time to import."""

import dataclasses

from influence_core import errors
from influence_core.projection.options import ProjectionOptions
from pipeline.index import choices as index_choices
from pipeline.tasks.reference import TaskReference


@dataclasses.dataclass(frozen=True)
class ProjectionRequest:
  """A corpus, what it is projected on, and how that is stored.

  Attributes:
    task: whose corpus and gradients are projected.
    basis: path of a basis from fit-basis, random-basis or query-basis.
    index: path of the index.
    options: how to project.
    range_size: largest number of examples in a unit of work.
    max_rejected_fraction: fraction of the examples that may be unusable before
      the job fails.
    per_token: store a row for each token of an example instead of one for the
      example, which takes as many backward passes; they add up to it.
    vector_dtype: dtype of stored projections; bfloat16 halves and int8 quarters
      the index, and topk states the error of each score.
    num_preprocess_workers: number of processes beside each worker that read and
      preprocess examples ahead of its devices; default: one for each core but
      one where there is an accelerator, else 0, which leaves it to the worker.
  """

  task: TaskReference
  basis: str
  index: str
  options: ProjectionOptions = dataclasses.field(
    default_factory=ProjectionOptions
  )
  range_size: int = 4096
  max_rejected_fraction: float = index_choices.MAX_REJECTED_FRACTION
  per_token: bool = False
  vector_dtype: index_choices.VectorDtype = 'float32'
  num_preprocess_workers: int | None = None

  def __post_init__(self):
    errors.check_at_least_one(range_size=self.range_size)
    number = self.num_preprocess_workers
    if number is not None and number < 0:
      raise errors.InputError(
        f'num_preprocess_workers is {number}, expected at least 0'
      )
    index_choices.check_rejected_fraction(self.max_rejected_fraction)
    errors.check_choice(
      'vector_dtype', self.vector_dtype, index_choices.VectorDtype
    )
