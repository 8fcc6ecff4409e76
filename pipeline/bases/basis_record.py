"""What is known of a stored basis without reading its eigenvectors."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from influence_core.eigenpairs import basis as basis_lib, reports
from influence_core.subspaces import subspace_basis
from influence_core.subspaces.columns import LayerColumns
from pipeline.storage import checked_files

Report = reports.Report | subspace_basis.KroneckerReport


@dataclasses.dataclass(frozen=True)
class StoredPart:
  """Eigenvectors of some parameters.

  Attributes:
    name: of the checkpoint, inside the directory of the basis.
    fingerprint: of names and values.
  """

  name: str
  fingerprint: str


@dataclasses.dataclass(frozen=True, repr=False)
class BasisRecord:
  """What is known of a stored basis without reading its eigenvectors.

  Attributes:
    path: absolute path.
    eigenvalues: by decreasing absolute value.
    report: its quality.
    config: resolved configuration of the job that made it.
    task_fingerprints: of the model it belongs to.
    probe: the file of `tasks.probe`.
    parts: where the eigenvectors are.
    fingerprint: of eigenvalues and eigenvectors.
    generation: which of the bases that followed each other at the path.
  """

  path: str
  eigenvalues: tuple[float, ...]
  report: Report
  config: Mapping[str, Any]
  task_fingerprints: Mapping[str, str]
  probe: checked_files.StoredFile
  parts: tuple[StoredPart, ...]
  fingerprint: str
  generation: int = 1

  def __post_init__(self):
    checked_files.check_file(self.probe)
    for part in self.parts:
      checked_files.check_name(part.name)

  @property
  def projection_dim(self) -> int:
    return len(self.eigenvalues)

  @property
  def query_ids(self) -> tuple[str, ...]:
    """Queries that the vectors were solved for; empty for eigenvectors."""
    if isinstance(self.report, reports.QueryReport):
      return self.report.query_ids
    return ()

  @property
  def layers(self) -> tuple[LayerColumns, ...]:
    """What columns stand for, of a basis of layers; else empty."""
    if isinstance(self.report, subspace_basis.KroneckerReport):
      return self.report.layers
    return ()

  @property
  def mean_curvature(self) -> float | None:
    """Of all parameters, estimated with eigenpairs; None where not known."""
    if isinstance(self.report, reports.BasisReport) and self.report.trace:
      return self.report.trace.mean_curvature
    return None

  def __repr__(self) -> str:
    return (
      f'<BasisRecord {self.path}: {self.projection_dim} vectors, '
      f'{basis_lib.spectrum_ends(self.eigenvalues)}, fingerprint '
      f'{self.fingerprint}>'
    )
