import numpy as np
import pytest

from influence_core.scores import exact_sums, top_k

GENERATOR = np.random.default_rng(0)


def brute_force(queries, rows, k, scales=None, parts=(np.s_[:],)):
  """(scores, positions) of the highest and the lowest, summed in float64."""
  queries, rows = queries.astype(np.float64), rows.astype(np.float64)
  scores = np.zeros((len(queries), len(rows)))
  for number, part in enumerate(parts):
    products = queries[:, part] @ rows[:, part].T
    scores += products if scales is None else products * scales[:, number]
  scores = scores.astype(np.float32)
  ends = []
  for signed in (scores, -scores):
    order = np.argsort(-signed, axis=1, kind='stable')[:, :k]
    ends.append((np.take_along_axis(signed, order, axis=1), order))
  return ends


def scan(
  queries, rows, k, *, scales=None, parts=(np.s_[:],), block=100, order=None
):
  """Leaders at both ends, with bounds as tight as they may be."""
  norms = np.linalg.norm(queries, axis=1).astype(np.float32)
  scaled = exact_sums.scaled(rows, scales, parts)
  result = top_k.TopKScan(queries, norms, k, parts=parts)
  starts = np.arange(0, len(rows), block)
  for start in starts if order is None else order.permutation(starts):
    part = slice(start, start + block)
    result.add(
      rows[part],
      np.arange(len(rows))[part],
      bounds=np.linalg.norm(scaled[part], axis=1),
      scales=None if scales is None else scales[part],
    )
  return result.highest(), result.lowest()


def check(found, expected):
  for leaders, (scores, positions) in zip(found, expected, strict=True):
    count = positions.shape[1]
    np.testing.assert_array_equal(leaders.positions[:, :count], positions)
    # The last bit of float64 sums in another order can show after rounding.
    np.testing.assert_allclose(
      leaders.scores[:, :count], scores, rtol=1e-6, atol=1e-7
    )
    assert (leaders.positions[:, count:] == top_k.NO_POSITION).all()


def make(num_queries, num_rows, dim=12, tail=1.0):
  queries = GENERATOR.normal(size=(num_queries, dim))
  norms = np.exp(tail * GENERATOR.normal(size=(num_rows, 1)))
  rows = GENERATOR.normal(size=(num_rows, dim)) * norms
  return queries.astype(np.float32), rows.astype(np.float32)


@pytest.mark.parametrize('num_queries', [1, 3, 300])
@pytest.mark.parametrize(('num_rows', 'k'), [(1000, 7), (1000, 1), (30, 50)])
@pytest.mark.parametrize('tail', [0, 1, 3])
def test_equals_brute_force(num_queries, num_rows, k, tail):
  queries, rows = make(num_queries, num_rows, tail=tail)
  check(scan(queries, rows, k), brute_force(queries, rows, k))


@pytest.mark.parametrize('block', [1, 7, 64, 1000])
def test_blocks_and_their_order_change_no_bit(block):
  queries, rows = make(5, 1000)
  whole = scan(queries, rows, 20)
  found = scan(queries, rows, 20, block=block, order=GENERATOR)
  for one, other in zip(whole, found, strict=True):
    np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_array_equal(one.positions, other.positions)


@pytest.mark.parametrize('block', [3, 50])
def test_ties_are_broken_by_position(block):
  queries, rows = make(4, 20)
  rows = np.tile(rows, (30, 1))  # Each row thirty times, in other blocks.
  found = scan(queries, rows, 45, block=block, order=GENERATOR)
  check(found, brute_force(queries, rows, 45))


@pytest.mark.parametrize(
  'parts', [[np.s_[:]], [np.s_[:5], np.s_[5:6], np.s_[6:]]]
)
def test_scales_multiply_parts_of_scores(parts):
  queries, rows = make(5, 500)
  scales = GENERATOR.uniform(0, 2, size=(500, len(parts))).astype(np.float32)
  scales[::7] = 0
  check(
    scan(queries, rows, 9, scales=scales, parts=parts),
    brute_force(queries, rows, 9, scales, parts),
  )


@pytest.mark.parametrize('value', [0.0, 1.0])
def test_all_scores_alike(value):
  queries, rows = np.full((2, 4), value, np.float32), np.ones((90, 4))
  found = scan(queries, rows.astype(np.float32), 5, block=20)
  check(found, brute_force(queries, rows, 5))


def test_leaders_of_parts_merge_to_those_of_the_whole():
  queries, rows = make(8, 900)
  norms = np.linalg.norm(queries, axis=1)
  parts = []
  for start in (600, 0, 300):  # As workers may end.
    part = top_k.TopKScan(queries, norms, 11)
    some = rows[start : start + 300]
    part.add(
      some,
      np.arange(start, start + 300),
      bounds=np.linalg.norm(some, axis=1),
    )
    parts.append((part.highest(), part.lowest()))
  found = [top_k.merge(end, 11) for end in zip(*parts, strict=True)]
  check(found, brute_force(queries, rows, 11))


def test_rows_out_of_reach_are_not_multiplied(monkeypatch):
  queries, rows = make(3, 4000, tail=0)
  rows[:1000] *= 100
  sizes = []
  matmul = top_k.host_products.matmul

  def counted(one, other):
    sizes.append(other.shape[1])
    return matmul(one, other)

  monkeypatch.setattr(top_k.host_products, 'matmul', counted)
  check(scan(queries, rows, 5, block=1000), brute_force(queries, rows, 5))
  assert sizes == [1000]
