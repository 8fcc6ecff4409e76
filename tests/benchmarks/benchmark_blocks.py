"""Which curvature inside subspaces predicts retraining best?

    python -m tests.benchmarks.benchmark_blocks --index K --lds L \
        --dampings 0.03 0.1 0.3 1

The coordinates of an index by `fit-basis --method kronecker` are weighted
anew: by the inverse of the curvature inside the subspace of all layers
together, whose eigenvectors mix layers, as Arnoldi iteration on that subspace
would find them all; and by its block of each layer, with several shares of
shrinkage. Damping is in units of the mean curvature of a block, which is the
whole or a layer. Scores are linear datamodelling scores over the retrainings of
`influence evaluate lds --index K --out L`, 95 % interval over queries.
"""

import argparse
from collections.abc import Sequence
import json
from typing import Any, NamedTuple

import numpy as np

from influence_core.projection.options import ProjectionOptions
from influence_core.scores import evaluation
from influence_core.subspaces import columns, projector as subspace_projector
from pipeline.bases import curvature_roots, curvature_sample, stored_basis
from pipeline.evaluation import datamodelling
from pipeline.evaluation.options import Design, Retraining
from pipeline.search.query_session import QuerySession
from pipeline.storage import files as storage
from pipeline.tasks import loaded_task


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--index', required=True, help='of kronecker')
  parser.add_argument('--lds', required=True, help='where retrainings are')
  parser.add_argument('--query_split', default='test[:50]')
  parser.add_argument('--num_subsets', type=int, default=50)
  parser.add_argument('--num_repeats', type=int, default=1)
  parser.add_argument(
    '--dampings', type=float, nargs='+', default=[0.03, 0.1, 0.3, 1.0]
  )
  parser.add_argument(
    '--shrinkages', type=float, nargs='+', default=[0.0, 0.2, 0.4, 0.6, 1.0]
  )
  flags = parser.parse_args()
  session = QuerySession(flags.index)
  loaded = session.loaded
  measured = datamodelling.Datamodelling(
    loaded, flags.query_split, Design(num_subsets=flags.num_subsets)
  )
  actual = measured.actual(
    storage.join(flags.lds, 'retrainings'),
    Retraining(num_repeats=flags.num_repeats),
  )
  ids = [str(x) for x in session.index.rows().column('id').to_pylist()]
  [record] = session.records
  turned = rotation(record)
  examples = session.index.vectors(np.arange(len(ids))) @ turned.T
  queries = session.project(flags.query_split).projections @ turned.T
  inside = turned @ curvature_inside(loaded, record) @ turned.T
  each = layer_blocks(record.layers)
  ways = {'together': (0.0, whole_block(inside, record.layers))}
  ways |= {f'blocks, shrunk by {x:g}': (x, each) for x in flags.shrinkages}
  for damping in flags.dampings:
    row: dict[str, Any] = {'damping': f'{damping:g}x'}
    for name, (shrinkage, blocks) in ways.items():
      curvature = inside * (1 - shrinkage * (1 - np.eye(len(inside))))
      scores = solved(curvature, blocks, damping, queries) @ examples.T
      own = datamodelling.scores(measured.losses_by(scores, ids), actual)
      row[name] = [round(x, 4) for x in evaluation.mean_interval(own, seed=0)]
    print(json.dumps(row), flush=True)


class Block(NamedTuple):
  """Columns whose curvature is solved with together.

  Attributes:
    columns: where they are.
    mean_curvature: that damping is relative to.
  """

  columns: slice
  mean_curvature: float


def layer_blocks(layers: Sequence[columns.LayerColumns]) -> list[Block]:
  return [
    Block(own, layer.mean_curvature)
    for own, layer in zip(columns.slices(layers), layers, strict=True)
  ]


def whole_block(
  inside: np.ndarray, layers: Sequence[columns.LayerColumns]
) -> list[Block]:
  """All columns, damped relative to the mean over all parameters."""
  traces, sizes = [], []
  for own, layer in zip(columns.slices(layers), layers, strict=True):
    traces.append(np.trace(inside[own, own]) / layer.captured)
    sizes.append(traces[-1] / layer.mean_curvature)
  return [Block(slice(None), sum(traces) / sum(sizes))]


def solved(
  inside: np.ndarray,
  blocks: Sequence[Block],
  damping: float,
  vectors: np.ndarray,
) -> np.ndarray:
  """Rows of vectors, times the inverse of the damped blocks."""
  found = np.empty_like(vectors, np.float64)
  for own, mean_curvature in blocks:
    curvature = inside[own, own]
    damped = curvature + damping * mean_curvature * np.eye(len(curvature))
    found[:, own] = np.linalg.solve(damped, vectors[:, own].T).T
  return found


def rotation(record: stored_basis.BasisRecord) -> np.ndarray:
  """[coordinates, columns]: the coordinates that columns stand for."""
  basis = stored_basis.load(record)
  whole = np.zeros((record.projection_dim,) * 2)
  parts = iter(columns.slices(record.layers))
  for stack in basis.report.stacks:
    for own in basis.directions[stack.path].rotation:
      part = next(parts)
      whole[part, part] = own
  return whole


def curvature_inside(
  loaded: loaded_task.LoadedTask, record: stored_basis.BasisRecord
) -> np.ndarray:
  """[projection_dim, projection_dim] float64 of the sample of the basis."""
  config, report = record.config, record.report
  basis = stored_basis.load(record)
  roots = curvature_roots.CurvatureRoots.of(
    loaded,
    report.curvature,
    num_draws=None if report.is_exact else report.num_draws,
    seed=config['seed'],
  )
  projector = subspace_projector.SubspaceProjector(
    roots.loss,
    loaded.params,
    stacks=basis.report.stacks,
    directions=basis.directions,
    selected=loaded.selected,
    features=roots.few(loaded),
    options=ProjectionOptions(),
  )
  samples = curvature_sample.CurvatureSamples(
    loaded, config['sample_size'], config['seed']
  )
  blocks = samples.blocks()
  total = np.zeros((record.projection_dim,) * 2)
  count = 0
  for number in range(len(blocks)):
    for place, features in enumerate(blocks[number]):
      drawn = roots.draw(features, (number, place))
      found = projector.project(drawn).projections.astype(np.float64)
      total += found.T @ found
      count += len(found) // roots.num_draws
  return total / count


if __name__ == '__main__':
  main()
