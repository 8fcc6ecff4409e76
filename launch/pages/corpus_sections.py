"""Sections on a corpus and its basis as a whole."""

from collections.abc import Sequence

import markupsafe
import pyarrow as pa

from influence_core import types
from influence_core.eigenpairs import reports
from influence_core.scores.options import ScoreOptions
from launch.pages import figures, report
from pipeline.bases import stored_basis
from pipeline.evaluation import detection as detection_lib
from pipeline.index import (
  ensemble,
  manifest as manifest_lib,
  reader as index_reader,
  rejected_examples,
)
from pipeline.search.corpus_summary import CorpusSummary
from pipeline.upkeep import generation_diff

# Examples that somebody would look at.
_NUM_FIRST = 100


def detection(
  index: ensemble.Ensemble, bad: str, where: str | None, options: ScoreOptions
) -> report.Detection:
  """How well scores find examples that are known to be bad.

  Args:
    index: with their scores.
    bad: SQL condition that they meet.
    where: one that all examples to rank meet; None for all of them.
    options: how to score.

  Raises:
    errors.InputError: All examples meet the condition, or none.
  """
  rankings = detection_lib.read_rankings(
    index, bad=bad, where=where, options=options, seed=0
  )
  num_first = min(_NUM_FIRST, len(rankings.is_bad))
  figures_of = detection_lib.measure(
    rankings, num_first=num_first, num_bootstrap=0, seed=0
  )
  return report.Detection(
    bad,
    int(rankings.is_bad.sum()),
    len(rankings.is_bad),
    num_first,
    figures_of.to_pylist(),
    figures.precision(detection_lib.curves(rankings)),
  )


def layers(
  index: ensemble.Ensemble, summary: CorpusSummary
) -> list[report.Layer]:
  """What the columns of the first index stand for, if it knows."""
  first, *_ = index.members
  return [
    report.Layer(
      layer.name,
      layer.count,
      layer.mean_curvature,
      layer.captured,
      summary.by_layer.get(layer.name, 0.0),
    )
    for layer in first.index.layers
  ]


def spectrum(
  records: Sequence[stored_basis.BasisRecord],
) -> markupsafe.Markup | None:
  """Of the first basis, if it has one."""
  if not records:
    return None
  record, *_ = records
  if record.layers:
    return figures.layer_spectra(record.eigenvalues, record.layers)
  if isinstance(record.report, reports.BasisReport):
    return figures.spectrum(record.eigenvalues, record.report.residuals)
  return None


def rejected(index: index_reader.Index) -> pa.Table:
  """`id` and `reason` of the examples that were left out."""
  return rejected_examples.load(index.path, index.manifest.rejected)


def earlier_generation(index: index_reader.Index) -> int | None:
  """The number of the generation before; None if there is none."""
  numbers = manifest_lib.generations(index.path)
  return max((x for x in numbers if x < index.generation), default=None)


def drift(
  index: index_reader.Index,
  earlier: int,
  options: ScoreOptions,
  progress: types.ProgressCallback,
) -> report.Drift:
  """What changed since an earlier generation.

  Args:
    index: opened.
    earlier: its number.
    options: how self-influence is scored.
    progress: called with the source files done.
  """
  found = generation_diff.difference(
    index_reader.Index(index.path, earlier),
    index,
    options=options,
    progress=progress,
  )
  return report.Drift(
    earlier,
    {
      'added': found.num_added,
      'gone': found.num_gone,
      'computed again': found.num_recomputed,
      'unchanged': found.num_unchanged,
    },
    found.changed_fingerprints,
    found.largest_moves,
  )
