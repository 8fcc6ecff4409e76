import dataclasses
import os
import shutil
import time

import numpy as np
import pytest

from influence_core.scores.options import ScoreOptions
from pipeline.index import manifest as manifest_lib, reader as index_reader
from pipeline.storage import files as storage
from pipeline.upkeep import generation_diff, generations

HOUR = 3600


@pytest.fixture(name='project')
def fixture_project(influence, workdir, basis, tmp_path):
  """Projects a split of the corpus into an index of its own."""

  def run(split='train', *more, data=workdir):
    return influence(
      *('project', '--task', 'tests.kit.linear_task:make_task'),
      *('--task_arg', f'workdir={data}', '--task_arg', f'split={split}'),
      *('--basis', basis, '--index', tmp_path / 'i', '--range_size', 40),
      *more,
    )

  return run


def ids(index, generation=None):
  opened = index_reader.Index(str(index), generation)
  return opened.rows(columns=['id'])['id'].to_pylist()


def age(path, hours):
  """Makes everything below a path look as old as that."""
  when = time.time() - hours * HOUR
  for root, _, names in os.walk(path):
    for name in names:
      os.utime(os.path.join(root, name), (when, when))


def test_only_what_changed_is_projected(project, tmp_path):
  assert project('train[:202]').status == 0  # Two of three source files.
  more = project('train')
  assert 'generation 1: 6 ranges reused, 3 recomputed, 0 dropped' in more.stdout
  assert '3 recomputed' in more.stdout
  less = project('train[101:]', '--json').json
  assert less['num_ranges_reused'] == 6
  assert less['num_ranges_dropped'] == 3
  assert (less['num_projected'], less['generation']) == (0, 3)
  again = project('train[101:]')
  assert 'nothing to do' in again.stdout
  assert manifest_lib.generations(str(tmp_path / 'i')) == [1, 2, 3]
  assert ids(tmp_path / 'i') == ids(tmp_path / 'i', 2)[101:]


@pytest.mark.slow
def test_another_model_makes_all_anew_and_says_so(
  influence, project, workdir, tmp_path
):
  project()
  task = ['--task', 'tests.kit.linear_task:make_task', '--task_arg']
  influence(
    *('fit-basis', *task, f'workdir={workdir}', '--out', tmp_path / 'b'),
    *('--projection_dim', 4, '--num_iterations', 6),
  )
  again = influence(
    *('project', *task, f'workdir={workdir}', '--basis', tmp_path / 'b'),
    *('--index', tmp_path / 'i', '--range_size', 40),
  )
  assert again.status == 0
  assert 'all is projected anew: basis is' in again.stdout
  assert '0 ranges reused, 9 recomputed, 0 dropped' in again.stdout


def test_generations_are_listed(influence, project, tmp_path):
  project('train[:202]')
  project()
  rows = influence('generations', '--index', tmp_path / 'i', '--json').json
  assert [
    (row['generation'], row['num_examples'], row['num_new_shards'])
    for row in rows['generations']
  ] == [(1, 202, 6), (2, 303, 3)]
  assert 'readers take the last one' in (
    influence('generations', '--index', tmp_path / 'i').stdout
  )
  missing = influence('generations', '--index', tmp_path / 'nothing')
  assert 'has no manifest' in missing.error_line


@pytest.mark.slow
def test_rollback_publishes_an_older_generation_again(
  influence, project, tmp_path
):
  project('train[:202]')
  project()
  pinned = index_reader.Index(str(tmp_path / 'i'))
  done = influence('rollback', '--index', tmp_path / 'i', '--generation', 1)
  assert 'published generation 3' in done.stdout
  assert ids(tmp_path / 'i') == ids(tmp_path / 'i', 1)
  assert pinned.rows().num_rows == 303  # A reader stays where it was.
  assert influence('verify', '--index', tmp_path / 'i').status == 0
  for generation, message in ((1, 'holds already'), (9, 'no generation 9')):
    failed = influence(
      *('rollback', '--index', tmp_path / 'i', '--generation', generation)
    )
    assert message in failed.error_line
  assert 'nothing to do' in project('train[:202]').stdout


@pytest.mark.slow
def test_rollback_needs_the_files(influence, project, tmp_path):
  project('train[:202]')
  shard = manifest_lib.load(str(tmp_path / 'i')).shards[0]
  project('train[101:]')
  (tmp_path / 'i' / 'shards' / shard.vectors.name).unlink()
  failed = influence('rollback', '--index', tmp_path / 'i', '--generation', 1)
  assert '1 files of generation 1 are gone' in failed.error_line


@pytest.mark.slow
def test_difference_between_generations(influence, project, workdir, tmp_path):
  data = tmp_path / 'w'
  shutil.copytree(workdir, data, ignore=lambda *_: ['index', 'basis'])
  project('train[:202]', data=data)
  source = manifest_lib.load(str(tmp_path / 'i')).shards[-1].range.source_shard
  os.utime(data / 'data' / 'points' / '1.0.0' / source)
  project('train[50:]', data=data)
  found = influence('diff', '--index', tmp_path / 'i', '--json').json
  assert (found['old'], found['new']) == (1, 2)
  assert found['num_gone'] == 50
  assert found['num_added'] == 101
  # Those of the second file, and those of the first whose ranges moved.
  assert found['num_recomputed'] == 152 - found['num_unchanged']
  assert found['changed_fingerprints'] == ['corpus']
  # The same model: batches of other sizes round otherwise.
  assert found['self_influence_moves']['max'] < 1e-5
  shown = influence('diff', '--index', tmp_path / 'i', '--old', 1).stdout
  assert '101 examples added, 50 gone' in shown
  failed = influence('diff', '--index', tmp_path / 'i', '--new', 1)
  assert 'has none before it' in failed.error_line


def test_difference_states_how_far_self_influence_moved(index):
  old, new = (index_reader.Index(str(index)) for _ in range(2))
  provenance = dataclasses.replace(
    new.manifest.provenance,
    eigenvalues=tuple(2 * x for x in new.manifest.provenance.eigenvalues),
  )
  renamed = [
    dataclasses.replace(shard, num_rejected=shard.num_rejected + 1)
    for shard in new.manifest.shards
  ]
  new.manifest = dataclasses.replace(
    new.manifest, provenance=provenance, shards=tuple(renamed)
  )
  found = generation_diff.difference(old, new, options=ScoreOptions())
  assert found.num_recomputed == 303
  np.testing.assert_allclose(found.relative_moves, 0.5, rtol=1e-6)
  assert len(found.largest_moves) == 10


def test_garbage_is_what_no_kept_generation_names(influence, project, tmp_path):
  index = tmp_path / 'i'
  project('train[:202]')
  project('train[101:]')
  left = index / 'shards' / 'vectors-f-0-1-x-abc.npy.tmp-1'
  left.write_bytes(b'left by a killed writer')
  (index / 'notes.txt').write_text('not ours')
  (index / 'searches' / 'killed').mkdir(parents=True)
  (index / 'searches' / 'killed' / 'queries.npz').write_bytes(b'left too')
  collect = ('gc', '--index', index, '--json')
  # Within the grace period, nothing is garbage.
  assert influence(*collect).json['paths'] == []
  age(index, 100)
  before = {str(p) for p in index.rglob('*') if p.is_file()}
  listed = influence(*collect, '--dry_run').json
  assert {str(p) for p in index.rglob('*') if p.is_file()} == before
  done = influence(*collect).json
  after = {str(p) for p in index.rglob('*') if p.is_file()}
  assert set(listed['paths']) == set(done['paths']) == before - after
  assert done['generations'] == [1]
  # Three ranges in two files each, two plans, a manifest and what was left.
  assert len(done['paths']) == 3 * 2 + 2 + 1 + 2
  assert (index / 'notes.txt').exists()
  assert influence('verify', '--index', index).status == 0
  assert manifest_lib.generations(str(index)) == [2]
  assert influence(*collect).json['paths'] == []


@pytest.mark.slow
def test_garbage_spares_running_jobs_and_recent_readers(project, tmp_path):
  index = str(tmp_path / 'i')
  project('train[:202]')
  project('train[101:]')
  age(index, 100)

  def find(hours=72.0, kept=1):
    return generations.find_garbage(
      index, num_kept=kept, grace_seconds=hours * HOUR
    )

  assert find(kept=2).generations == ()
  assert find(hours=101).paths == ()
  # Superseded an hour ago: a reader may still be on the first generation.
  os.utime(manifest_lib.path_of(index, 2))
  assert find().generations == ()
  age(index, 100)
  # A run that has just begun again adopts what is there.
  project('train', '--json')
  newest = manifest_lib.path_of(index, 3)
  os.remove(newest)
  stems = {name for name in find().paths if '/shards/' in name}
  assert stems == set()


def test_garbage_of_a_damaged_index_is_left_alone(influence, project, tmp_path):
  project()
  age(tmp_path / 'i', 100)
  path = tmp_path / 'i' / 'manifest-000001.json'
  path.write_text(path.read_text().replace('"num_read": 303', '"num_read": 0'))
  failed = influence('gc', '--index', tmp_path / 'i')
  assert 'no complete JSON document' in failed.error_line
  out_of_range = influence('gc', '--index', tmp_path / 'i', '--keep', 0)
  assert 'keep is 0' in out_of_range.error_line


def test_modification_times_are_known_in_memory_too():
  storage.create_exclusive('memory://ages/f', b'x')
  entry = storage.entries('memory://ages')['f']
  assert abs(entry.modified - time.time()) < 60
  assert (entry.num_bytes, entry.is_directory) == (1, False)
