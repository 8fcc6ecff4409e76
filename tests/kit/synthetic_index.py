"""A small index of made-up projections, as a task would give them."""

import itertools

import numpy as np
import pyarrow as pa

from influence_core.subspaces.columns import LayerColumns
from pipeline import open_index
from pipeline.index import (
  format as index_format,
  manifest as manifest_lib,
  vector_codec,
)

DIM, NUM_ROWS = 12, 3000
EIGENVALUES = tuple((10.0 / np.arange(1, DIM + 1) ** 2).tolist())
GENERATOR = np.random.default_rng(0)


def draw(count):
  """Projections as of gradients: second moments are the eigenvalues."""
  vectors = GENERATOR.normal(size=(count, DIM)) * np.sqrt(EIGENVALUES)
  norms = np.exp(GENERATOR.normal(size=(count, 1)))  # Heavy tails.
  return (vectors * norms).astype(np.float32)


VECTORS, QUERIES = draw(NUM_ROWS), draw(7)
NORMS = (np.square(VECTORS).sum(axis=1) * 1.5).astype(np.float32)


# Of one basis of layers; without them the columns are those of all parameters.
LAYERS = (
  LayerColumns('Conv_0', 5, 2.0, 0.9),
  LayerColumns('Dense_0', 4, 0.5, 0.8),
  LayerColumns('Dense_1', 3, 0.1, 1.0),
)


def make_index(path, dtype, layers=()):
  codec = vector_codec.VectorCodec(dtype, np.array(EIGENVALUES))
  shards = []
  for start, stop in itertools.pairwise([0, 1100, 1101, NUM_ROWS]):
    rows = pa.table(
      {
        'id': [f'f__{i}' for i in range(start, stop)],
        'loss': pa.array(np.zeros(stop - start), pa.float32()),
        'squared_gradient_norm': pa.array(NORMS[start:stop]),
        'label': np.arange(start, stop) % 2,
      }
    )
    shards.append(
      index_format.write_shard(
        str(path),
        index_format.ExampleRange('f', start, stop, 'x'),
        index_format.ShardContent(VECTORS[start:stop], rows, {}),
        codec,
      )
    )
  manifest_lib.publish(
    str(path),
    manifest_lib.Provenance(
      {}, '', EIGENVALUES, {'dtype': dtype}, layers=layers
    ),
    tuple(shards),
  )
  return open_index(str(path))
