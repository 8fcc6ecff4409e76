"""What does not fit memory or disk is one line, before it is allocated."""

import pytest

from influence_core import errors
from influence_core.devices import memory as device_memory
from pipeline.search import row_blocks
from pipeline.tasks import checkpoints
from tests.kit import synthetic_index


@pytest.fixture(name='host_bytes')
def fixture_host_bytes(monkeypatch):
  """Says how much memory there is for what is checked."""

  def set_bytes(count):
    fraction = count / device_memory.host_bytes()
    monkeypatch.setattr(device_memory, '_MAX_HOST_FRACTION', fraction)

  return set_bytes


_FIT = ['--projection_dim', 1, '--num_iterations', 6, '--sample_size', 1]


@pytest.mark.parametrize(
  ('command', 'flags', 'num_bytes', 'message'),
  [
    # 6 parameters in float32, of which 5 are one array.
    ('fit-basis', [], 10, 'the arrays of '),
    ('random-basis', ['--projection_dim', 6], 100, '6 random vectors of 6 par'),
    ('doctor', ['--projection_dim', 6], 200, '6 vectors of 6 parameters'),
    ('query-basis', ['--query_split', 'test'], 100, 'gradients of 20 queries'),
    ('fit-basis', ['--projection_dim', 6], 100, '6 eigenvectors of weights'),
    ('fit-basis', ['--projection_dim', 6], 1000, '303 sampled examples'),
    (
      'fit-basis',
      [*_FIT, '--krylov_placement', 'host'],
      100,
      'pass --krylov_placement disk',
    ),
  ],
)
def test_bases(
  influence,
  task_flags,
  tmp_path,
  host_bytes,
  command,
  flags,
  num_bytes,
  message,
):
  host_bytes(num_bytes)
  out = [] if command == 'doctor' else ['--out', tmp_path / 'b']
  line = influence(command, *task_flags, *out, *flags).error_line
  assert message in line
  assert 'of memory, this machine has' in line
  assert not (tmp_path / 'b' / 'basis.json').exists()


def test_vectors_that_do_not_fit_the_devices(influence, task_flags, tmp_path):
  found = influence(
    *('fit-basis', *task_flags, '--out', tmp_path / 'b', *_FIT),
    *('--krylov_placement', 'device', '--memory_budget', '200K'),
    *('--num_iterations', 100_000),
  )
  assert 'pass --krylov_placement host or disk' in found.error_line


@pytest.mark.parametrize(
  ('command', 'flags'),
  [
    ('random-basis', ['--projection_dim', 100_000]),
    ('fit-basis', ['--projection_dim', 7, '--num_iterations', 7]),
    ('doctor', ['--projection_dim', 7]),
  ],
)
def test_more_vectors_than_directions(
  influence, task_flags, tmp_path, command, flags
):
  out = [] if command == 'doctor' else ['--out', tmp_path / 'b']
  found = influence(command, *task_flags, *out, *flags)
  assert 'pass --projection_dim 6 or less' in found.error_line


def test_basis_that_does_not_fit(
  influence, task_flags, basis, tmp_path, host_bytes
):
  host_bytes(100)
  [eigenvectors] = basis.glob('eigenvectors-*/part-00000')
  assert checkpoints.num_bytes(str(eigenvectors)) == 6 * 6 * 4
  place = ['--basis', basis, '--index', tmp_path / 'i']
  found = influence('project', *task_flags, *place)
  assert 'the eigenvectors of ' in found.error_line
  assert not (tmp_path / 'i' / 'shards').exists()


def test_basis_streamed_from_a_host_without_room(host_bytes):
  host_bytes(1000)
  sizes = {'parameter_bytes': 24, 'vector_bytes': 24, 'projection_dim': 50}
  with pytest.raises(errors.InputError, match='a basis of 50 vectors, kept on'):
    device_memory.plan_memory(**sizes, placement='streamed')
  device_memory.plan_memory(**sizes, placement='replicated')


def test_scores_and_exports(tmp_path, influence, host_bytes, monkeypatch):
  index = synthetic_index.make_index(tmp_path / 'i', 'float32')
  host_bytes(1000)
  options = row_blocks.ScoreOptions()
  with pytest.raises(errors.InputError, match='scores of 3,000 examples for 7'):
    row_blocks.all_scores(index, synthetic_index.QUERIES, options)
  out = ['--index', index.path, '--out', tmp_path / 'e']
  found = influence('export', *out, '--format', 'faiss')
  assert 'a FAISS index of 3,000 examples would take' in found.error_line
  monkeypatch.setattr(
    'pipeline.storage.disk_room.free_bytes', lambda directory: 1000
  )
  found = influence('export', *out, '--format', 'npy')
  assert 'and 1,000 are free in ' in found.error_line
  assert not (tmp_path / 'e').exists()
