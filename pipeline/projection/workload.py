"""What an example takes, as a few ranges of a corpus have shown."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Workload:
  """What was measured.

  Attributes:
    read_seconds: of reading and preprocessing an example.
    project_seconds: of projecting one, compiled.
    write_seconds: of its share of a shard.
    start_seconds: until a worker projects its first example: loading,
      compiling.
    start_bytes: that it reads for that, parameters and basis.
    index_bytes: of an example.
    reads_of_a_range: requests for the records of a range.
    range_size: examples of a range.
  """

  read_seconds: float
  project_seconds: float
  write_seconds: float
  start_seconds: float
  start_bytes: int
  index_bytes: float
  reads_of_a_range: float
  range_size: int

  @property
  def seconds(self) -> float:
    """Of an example, one step after the other."""
    return self.read_seconds + self.project_seconds + self.write_seconds
