"""`influence describe`: what a stored basis or index is."""

from typing import Any

from influence_core import errors
from influence_core.subspaces import columns
from launch.output import basis_page, console as console_lib
from pipeline.bases import stored_basis
from pipeline.index import reader as index_reader


def run(
  console: console_lib.Console, *, basis: str | None, index: str | None
) -> dict[str, Any]:
  """Describes whichever of the two is given."""
  if index is not None:
    return describe_index(console, index_reader.Index(index))
  if basis is not None:
    return basis_page.describe_basis(console, stored_basis.load_record(basis))
  raise errors.InputError('nothing to describe; pass --basis or --index')


def describe_index(
  console: console_lib.Console, index: index_reader.Index
) -> dict[str, Any]:
  """Prints and returns what an index holds and was made from."""
  manifest = index.manifest
  provenance = manifest.provenance
  result = {
    'index': index.path,
    'generation': manifest.generation,
    'num_examples': manifest.num_examples,
    'num_rejected': manifest.num_rejected,
    'num_shards': len(manifest.shards),
    'num_bytes': sum(
      shard.rows.num_bytes + shard.vectors.num_bytes
      for shard in manifest.shards
    ),
    'projection_dim': provenance.projection_dim,
    'mean_curvature': provenance.mean_curvature,
    'task': provenance.task,
    'basis': provenance.basis,
    'fingerprints': dict(provenance.fingerprints),
    'layers': columns.to_json(index.layers),
  }
  console.table(
    f'index {index.path}',
    ['field', 'value'],
    [
      [name, str(value)]
      for name, value in result.items()
      if name not in ('index', 'fingerprints', 'layers') and value is not None
    ]
    + [
      [f'fingerprint of {name}', value]
      for name, value in provenance.fingerprints.items()
    ],
  )
  if index.layers:
    basis_page.print_layers(console, 'its columns', index.layers)
  return result
