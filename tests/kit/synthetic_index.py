"""A small index of made-up projections, as a task would give them."""

import itertools

import numpy as np
import pyarrow as pa

from influence_core.subspaces.columns import LayerColumns
from pipeline import open_index
from pipeline.index import (
  format as index_format,
  manifest as manifest_lib,
  rejected_examples,
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


def make_index(
  path,
  dtype,
  layers=(),
  *,
  vectors=VECTORS,
  norms=NORMS,
  eigenvalues=EIGENVALUES,
  edges=(0, 1100, 1101, NUM_ROWS),
  rejected=(),
  corpus='c',
  more_fingerprints=(),
):
  """An index of vectors, without the rejected ones.

  Args:
    path: directory.
    dtype: of the index.
    layers: of the columns.
    vectors: [edges[-1], dim].
    norms: squared, of gradients.
    eigenvalues: of the columns.
    edges: of shards.
    rejected: numbers of examples.
    corpus: fingerprint.
    more_fingerprints: others, by name.
  """
  codec = vector_codec.VectorCodec(dtype, np.array(eigenvalues), layers)
  shards = []
  for start, stop in itertools.pairwise(edges):
    kept = np.setdiff1d(np.arange(start, stop), rejected)
    rows = pa.table(
      {
        'id': [f'f__{i}' for i in kept],
        'loss': pa.array(np.zeros(len(kept)), pa.float32()),
        'squared_gradient_norm': pa.array(norms[kept]),
        'label': kept % 2,
      }
    )
    left_out = {f'f__{i}': 'bad' for i in rejected if start <= i < stop}
    shards.append(
      index_format.write_shard(
        str(path),
        index_format.ExampleRange('f', start, stop, 'x'),
        index_format.ShardContent(vectors[kept], rows, left_out),
        codec,
      )
    )
  fingerprints = {'dtype': dtype, 'corpus': corpus, **dict(more_fingerprints)}
  manifest_lib.publish(
    str(path),
    manifest_lib.Provenance({}, '', eigenvalues, fingerprints, layers=layers),
    tuple(shards),
    rejected_examples.save_list(str(path), shards),
  )
  return open_index(str(path))
