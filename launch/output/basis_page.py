"""What a stored basis is, printed: eigenvalues, residuals, and its report."""

from collections.abc import Sequence
import dataclasses
from typing import Any

from influence_core.eigenpairs import reports, trust as basis_trust
from influence_core.subspaces import subspace_basis
from influence_core.subspaces.columns import LayerColumns
from launch.output import console as console_lib
from pipeline.bases import stored_basis

_MAX_ROWS = 20


def describe_basis(
  console: console_lib.Console, record: stored_basis.BasisRecord
) -> dict[str, Any]:
  """Prints eigenvalues with residuals and returns the whole record."""
  report = record.report
  if report.rejected:
    example_id, reason = next(iter(report.rejected.items()))
    console.warn(
      f'{len(report.rejected):,} sampled examples were left out of the basis, '
      f'the first is {example_id} ({reason}); --json lists all'
    )
  if isinstance(report, reports.RandomReport):
    return _describe_random(console, record, report)
  if isinstance(report, reports.QueryReport):
    return _describe_queries(console, record, report)
  if isinstance(report, subspace_basis.KroneckerReport):
    return _describe_layers(console, record, report)
  config = record.config
  pairs = list(zip(record.eigenvalues, report.residuals, strict=True))
  shown = _spread(len(pairs))
  console.table(
    f'basis {record.path}',
    ['pair', 'eigenvalue', 'residual'],
    [[str(i + 1), f'{pairs[i][0]:.6g}', f'{pairs[i][1]:.1e}'] for i in shown],
  )
  facts = {
    'curvature': f'{config["curvature"]} of {report.sample_size:,} examples',
    'iterations': (
      f'{report.num_iterations}, with the trace {report.num_products} products '
      f'in {report.seconds:.1f} s'
    ),
    'worst residual': (
      f'{max(report.residuals):.1e}; {report.num_unreliable} of '
      f'{record.projection_dim} pairs above {report.tolerance:.2g}'
    ),
    'orthogonality error': f'{report.orthogonality_error:.1e}',
    'negative mass': f'{report.negative_mass:.2%} of the spectrum seen',
    'trace': _trace(report),
    'mean curvature': _mean_curvature(report.trace),
    'second sample': _agreement(report.second_sample),
    'twice the sample': _agreement(report.doubled_sample),
  }
  console.table('report', ['quantity', 'value'], list(map(list, facts.items())))
  checked = '' if report.second_sample else '; not compared across samples'
  return _conclude(
    console, record, f'every pair is an eigenpair of its sample{checked}'
  )


def _conclude(
  console: console_lib.Console, record: stored_basis.BasisRecord, good: str
) -> dict[str, Any]:
  """Prints the verdict, with what is good where nothing is bad."""
  objections = record.report.objections
  for objection in objections:
    console.print(f'NO-GO: {objection}')
  if not objections:
    console.print(f'GO: {good}')
  return {
    **dataclasses.asdict(record),
    'go': not objections,
    'objections': objections,
  }


def _describe_layers(
  console: console_lib.Console,
  record: stored_basis.BasisRecord,
  report: subspace_basis.KroneckerReport,
) -> dict[str, Any]:
  print_layers(console, f'basis {record.path}', report.layers)
  draws = 'all' if report.is_exact else str(report.num_draws)
  console.print(
    f'{record.projection_dim} coordinates; {report.curvature} of '
    f'{report.sample_size:,} examples, {draws} gradients of each, in '
    f'{report.seconds:.1f} s'
  )
  if report.left_out:
    shares = (f'{path} ({x:.1%})' for path, x in report.left_out.items())
    console.print(
      f'left out, with shares of the curvature: {", ".join(shares)}'
    )
  return _conclude(
    console, record, 'the curvature inside is that of its sample'
  )


def print_layers(
  console: console_lib.Console, title: str, layers: Sequence[LayerColumns]
) -> None:
  """Prints what the columns of a projection stand for."""
  console.table(
    title,
    ['layer', 'coordinates', 'mean curvature', 'share of the trace'],
    [
      [x.name, str(x.count), f'{x.mean_curvature:.3g}', f'{x.captured:.1%}']
      for x in layers
    ],
  )


def _describe_random(
  console: console_lib.Console,
  record: stored_basis.BasisRecord,
  report: reports.RandomReport,
) -> dict[str, Any]:
  what = f'{record.projection_dim} random vectors, seed {record.config["seed"]}'
  if report.method == 'random_gram':
    what += f', weighted by the gradients of {report.sample_size:,} examples'
  console.print(f'basis {record.path}: {what}')
  return {**dataclasses.asdict(record), 'go': True, 'objections': []}


def _describe_queries(
  console: console_lib.Console,
  record: stored_basis.BasisRecord,
  report: reports.QueryReport,
) -> dict[str, Any]:
  what = f'{record.projection_dim} queries, {report.query_ids[0]} to '
  what += f'{report.query_ids[-1]}, by {report.method}'
  if report.sample_size:
    what += (
      f' with {record.config["curvature"]} of {report.sample_size:,} examples'
    )
  if report.residuals:
    what += (
      f'; {report.num_products:,} products, worst residual '
      f'{max(report.residuals):.1e}'
    )
  if report.trace:
    what += f'; mean curvature {_mean_curvature(report.trace)}'
  console.print(f'basis {record.path}: {what}')
  return {**dataclasses.asdict(record), 'go': True, 'objections': []}


def _trace(report: reports.BasisReport) -> str:
  trace = report.trace
  if trace is None:
    return 'not estimated (--num_trace_probes)'
  estimate = f'{trace.trace:.4g} ± {trace.standard_error:.1g}'
  if not 0 <= trace.captured <= 1:
    return f'{estimate}; no part of it, negative eigenvalues cancel others'
  return f'{estimate}; the basis captures {trace.captured:.1%}'


def _mean_curvature(trace: basis_trust.TraceEstimate | None) -> str:
  """What relative damping is relative to."""
  if trace is None or not trace.num_parameters:
    return 'not known: no --damping such as 0.1x'
  error = trace.standard_error / trace.num_parameters
  return f'{trace.mean_curvature:.4g} ± {error:.1g}, which --damping 1x adds'


def _agreement(agreement: basis_trust.SubspaceAgreement | None) -> str:
  if agreement is None:
    return 'not compared (--check_sample)'
  cosines = agreement.cosines
  return (
    f'{agreement.overlap:.1%} of the subspace is found again; principal '
    f'cosines {cosines[0]:.3f} to {cosines[-1]:.3f}'
  )


def _spread(count: int) -> list[int]:
  """Up to `_MAX_ROWS` indices over the whole range, both ends included."""
  if count <= _MAX_ROWS:
    return list(range(count))
  last = _MAX_ROWS - 1
  return sorted({round(i * (count - 1) / last) for i in range(_MAX_ROWS)})
