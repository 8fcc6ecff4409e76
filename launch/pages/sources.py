"""Indexes and bases in a few words, for pages."""

import datetime

from influence_core.eigenpairs import reports
from influence_core.subspaces import subspace_basis
from launch.pages.report import Source
from pipeline.bases import stored_basis
from pipeline.index import reader as index_reader


def describe(
  index: index_reader.Index, record: stored_basis.BasisRecord | None
) -> Source:
  """An index and its basis.

  Args:
    index: opened.
    record: of its basis; None where that was not looked at.
  """
  manifest = index.manifest
  provenance = manifest.provenance
  num_bytes = sum(
    shard.rows.num_bytes + shard.vectors.num_bytes for shard in manifest.shards
  )
  per_example = num_bytes / max(manifest.num_examples, 1)
  arguments = (f'{k}={v}' for k, v in provenance.task['arguments'].items())
  facts = {
    'training examples': f'{manifest.num_examples:,}',
    'left out as unusable': f'{manifest.num_rejected:,}',
    'numbers for each': (
      f'{provenance.projection_dim:,} {provenance.fingerprints["dtype"]}'
    ),
    'bytes for each': f'{per_example:,.0f}',
    'generation': str(manifest.generation),
    'task': ' '.join([provenance.task['import_path'], *arguments]),
    'basis': provenance.basis,
  }
  return Source(
    index.path,
    facts,
    _in_words(record) if record else '',
    record.report.objections if record else [],
    provenance.fingerprints,
  )


def now() -> str:
  """The time, for people."""
  return datetime.datetime.now().astimezone().strftime('%Y-%m-%d %H:%M %Z')


def _in_words(record: stored_basis.BasisRecord) -> str:
  report, dim = record.report, record.projection_dim
  if isinstance(report, subspace_basis.KroneckerReport):
    return (
      f'{dim:,} coordinates in subspaces of {len(report.layers)} layers, with '
      f'the {_named(report.curvature)} of {report.sample_size:,} examples '
      'inside'
    )
  if isinstance(report, reports.RandomReport):
    return f'{dim} random vectors'
  if isinstance(report, reports.QueryReport):
    return f'{dim} queries, each solved for by {report.method}'
  return (
    f'{dim} eigenpairs of the {_named(record.config["curvature"])} of '
    f'{report.sample_size:,} examples, the worst residual '
    f'{max(report.residuals):.1e}'
  )


def _named(curvature: str) -> str:
  names = {'gauss_newton': 'Gauss-Newton matrix', 'hessian': 'Hessian'}
  return names.get(curvature, curvature.replace('_', ' '))
