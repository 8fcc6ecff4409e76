"""Is one curvature for all layers together better than a block for each?

    python -m tests.benchmarks.benchmark_blocks --index K --lds L \
        --dampings 0.03 0.1 0.3 1

The coordinates of an index by `fit-basis --method kronecker` are weighted
anew: by the inverse of the curvature inside the subspace of all layers
together, whose eigenvectors mix layers, as Arnoldi iteration on that subspace
would find them all; and by its block of each layer, as queries do. Damping is
in units of the mean curvature of a block, which is the whole or a layer.
Scores are linear datamodelling scores over the retrainings that
`influence evaluate lds --index K --out L` made, 95 % interval over queries.
"""

import argparse
import json

import numpy as np

from influence_core.projection.options import ProjectionOptions
from influence_core.scores import evaluation
from influence_core.subspaces import columns, projector as subspace_projector
from pipeline.bases import curvature_roots, curvature_sample, stored_basis
from pipeline.evaluation import datamodelling, retrainings
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
  examples = session.index.vectors(np.arange(len(ids)))
  queries = session.project(flags.query_split).projections
  parts = retrainings.draw_parts(
    Design(num_subsets=flags.num_subsets),
    retrainings.all_ids(loaded.task.corpus),
  )
  [record] = session.records
  inside = curvature_inside(loaded, record)
  layers = record.layers
  # What the mean is over: entries of a layer, by what is stored of it.
  sizes = [
    np.trace(inside[own, own]) / (layer.captured * layer.mean_curvature)
    for own, layer in zip(columns.slices(layers), layers, strict=True)
  ]
  traces = [
    size * layer.mean_curvature
    for size, layer in zip(sizes, layers, strict=True)
  ]
  of_all = sum(traces) / sum(sizes)
  for damping in flags.dampings:
    joint = solved(inside, damping * of_all, queries)
    blocks = np.concatenate(
      [
        solved(
          inside[own, own], damping * layer.mean_curvature, queries[:, own]
        )
        for own, layer in zip(columns.slices(layers), layers, strict=True)
      ],
      axis=1,
    )
    row = {'damping': f'{damping:g}x'}
    for name, weighted in (('together', joint), ('blocks', blocks)):
      predicted = -retrainings.influence_of_parts(
        weighted @ examples.T, ids, parts
      )
      own = datamodelling.scores(predicted, actual)
      row[name] = [round(x, 4) for x in evaluation.mean_interval(own)]
    print(json.dumps(row), flush=True)


def curvature_inside(
  loaded: loaded_task.LoadedTask, record: stored_basis.BasisRecord
) -> np.ndarray:
  """[projection_dim, projection_dim] float64 of the sample of the basis."""
  config, report = record.config, record.report
  basis = stored_basis.load_basis(record)
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


def solved(
  curvature: np.ndarray, damping: float, vectors: np.ndarray
) -> np.ndarray:
  """Rows of vectors, times the inverse of the damped curvature."""
  damped = curvature + damping * np.eye(len(curvature))
  return np.linalg.solve(damped, vectors.T).T


if __name__ == '__main__':
  main()
