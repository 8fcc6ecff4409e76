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
    task: whose corpus and gradients.
    basis: from fit-basis.
    index: directory of the index.
    options: how to project.
    range_size: examples of a unit of work, at most.
    max_rejected_fraction: fail when more examples are unusable.
    vector_dtype: how projections are stored; bfloat16 halves and int8 quarters
      the index, and topk states the error of each score.
  """

  task: TaskReference
  basis: str
  index: str
  options: ProjectionOptions = dataclasses.field(
    default_factory=ProjectionOptions
  )
  range_size: int = 4096
  max_rejected_fraction: float = index_choices.MAX_REJECTED_FRACTION
  vector_dtype: index_choices.VectorDtype = 'float32'

  def __post_init__(self):
    errors.check_at_least_one(range_size=self.range_size)
    index_choices.check_rejected_fraction(self.max_rejected_fraction)
    errors.check_choice(
      'vector_dtype', self.vector_dtype, index_choices.VectorDtype
    )
