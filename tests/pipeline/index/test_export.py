import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from influence_core.scores import influence as influence_scores
from influence_core.scores.options import ScoreOptions
from pipeline import open_index
from pipeline.storage import files as storage


@pytest.mark.parametrize(
  'where', ['{tmp}/deep/o.parquet', 'file://{tmp}/o.parquet']
)
def test_parquet_has_rows_and_projections(influence, index, tmp_path, where):
  out = where.format(tmp=tmp_path)
  done = influence('export', '--index', index, '--out', out)
  assert done.status == 0, done.stderr
  opened = open_index(str(index))
  path = out.removeprefix('file://')
  table = pq.read_table(path)
  assert table.column_names == [*opened.schema.names, 'projection']
  assert table['id'].to_pylist() == opened.rows()['id'].to_pylist()
  projections = np.array(table['projection'].to_pylist(), np.float32)
  np.testing.assert_array_equal(projections, opened.projections())
  count, length = duckdb.sql(
    f"select count(*), max(len(projection)) from '{path}' where half = 1"
  ).fetchall()[0]
  assert (count, length) == (sum(opened.rows()['half'].to_pylist()), 6)


def test_npy_has_projections_in_order(influence, index, tmp_path):
  path = tmp_path / 'out.npy'
  influence('export', '--index', index, '--out', path, '--format', 'npy')
  projections = open_index(str(index)).projections()
  np.testing.assert_array_equal(np.load(path), projections)


def test_faiss_index_gives_influences(influence, index, tmp_path):
  faiss = pytest.importorskip('faiss', reason='faiss is not installed')
  path = tmp_path / 'out.faiss'
  done = influence(
    *('export', '--index', index, '--out', path, '--format', 'faiss'),
    *('--damping', 0.1),
  )
  assert done.status == 0, done.stderr
  opened = open_index(str(index))
  options = ScoreOptions(damping=0.1)
  weights = influence_scores.inverse_eigenvalues(opened.eigenvalues, options)
  queries = opened.projections([5, 99])
  scores, positions = faiss.read_index(str(path)).search(
    (queries * np.sqrt(weights)).astype(np.float32), 10
  )
  found = opened.topk(queries, 10, options=options).proponents
  np.testing.assert_array_equal(positions, found.positions)
  # float32 products of six terms in another order.
  np.testing.assert_allclose(scores, found.scores, rtol=1e-4)


def test_what_is_not_whole_does_not_appear(tmp_path):
  path = tmp_path / 'out'
  path.write_bytes(b'before')

  def write_half():
    with storage.open_for_writing(str(path)) as file:
      file.write(b'half')
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    write_half()
  assert path.read_bytes() == b'before'
  assert list(tmp_path.iterdir()) == [path]


def test_bad_arguments_are_told(influence, index, tmp_path):
  wrong = influence(
    *('export', '--index', index, '--out', tmp_path / 'o', '--format', 'csv')
  )
  assert "invalid choice: 'csv'" in wrong.error_line
  unknown = influence('export', '--index', index, '--out', tmp_path / 'o.csv')
  assert 'ends in .parquet, .npy, .faiss; or give' in unknown.error_line
  assert not (tmp_path / 'o.csv').exists()
  missing = influence(
    'export', '--index', tmp_path, '--out', tmp_path / 'o.npy'
  )
  assert 'has no manifest' in missing.error_line
  unwritable = influence('export', '--index', index, '--out', '/proc/no/o.npy')
  assert 'cannot write to /proc/no' in unwritable.error_line


def test_format_is_that_of_the_name(influence, index, tmp_path):
  for name, extra in (('o.npy', []), ('o', ['--format', 'npy'])):
    out = tmp_path / name
    assert (
      influence('export', '--index', index, '--out', out, *extra).status == 0
    )
    assert out.read_bytes().startswith(b'\x93NUMPY')
