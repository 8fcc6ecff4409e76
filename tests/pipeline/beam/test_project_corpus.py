"""The index is the same however it was made, and each example is in it once."""

import os
import shutil
import signal
import subprocess
import sys
import time

import apache_beam as beam
from apache_beam import pipeline as beam_pipeline
import numpy as np
import pyarrow.parquet as pq
import pytest

from influence_core import errors
from pipeline.beam import project_corpus
from pipeline.index import (
  format as index_format,
  manifest as manifest_lib,
  reader as index_reader,
)
from pipeline.projection import (
  job as projection_job,
  plan as plan_lib,
  publishing,
  worker as projection_worker,
)
from pipeline.projection.request import ProjectionRequest
from pipeline.storage import checked_files
from pipeline.tasks.reference import TaskReference
from tests.conftest import ROOT
from tests.kit import linear_task


def contents(index):
  """Ids and numbers of a whole index, in the order of the corpus."""
  opened = index_reader.Index(str(index))
  parts = list(opened.read_blocks(columns=opened.schema.names))
  ids = [row for part in parts for row in part.rows['id'].to_pylist()]
  return ids, np.concatenate(
    [
      np.column_stack(
        [
          part.vectors,
          part.rows['loss'],
          part.rows['squared_gradient_norm'],
          part.rows['half'],
        ]
      )
      for part in parts
    ]
  )


def assert_same_index(index, other):
  (ids, numbers), (other_ids, other_numbers) = contents(index), contents(other)
  assert ids == other_ids
  assert len(set(ids)) == linear_task.NUM_TRAIN
  # Other batch shapes and devices may add up in another order.
  np.testing.assert_allclose(
    numbers, other_numbers, rtol=1e-5, atol=1e-6 * np.abs(numbers).max()
  )


def flags(task_flags, basis, index, *more):
  return ['project', *task_flags, '--basis', basis, '--index', index, *more]


@pytest.mark.parametrize(
  'options',
  [
    ['--range_size', 1000],
    ['--range_size', 7, '--batch_size', 3],
    ['--num_workers', 1],
    ['--num_workers', 3, '--batch_size', 1],
  ],
)
def test_any_ranges_batches_and_threads_give_the_same_index(
  influence, task_flags, basis, index, tmp_path, options
):
  made = influence(*flags(task_flags, basis, tmp_path, *options, '--json'))
  assert made.json['num_examples'] == linear_task.NUM_TRAIN
  assert_same_index(index, tmp_path)


@pytest.mark.slow
def test_several_processes_give_the_same_bytes(
  influence_process, task_flags, basis, index, tmp_path
):
  options = ['--range_size', 40, '--json', '--', '--direct_num_workers=2']
  made = influence_process(
    *flags(task_flags, basis, tmp_path, *options),
    '--runner=FnApiRunner',
    '--direct_running_mode=multi_processing',
  )
  assert made.status == 0, made.stderr
  assert_same_index(index, tmp_path)


@pytest.mark.slow
def test_several_devices_give_the_same_basis_and_index(
  influence_process, task_flags, basis, index, tmp_path
):
  options = ['--projection_dim', 6, '--num_iterations', 6, '--json']
  fitted = influence_process(
    'fit-basis', *task_flags, '--out', tmp_path / 'b', *options, devices=4
  )
  np.testing.assert_allclose(
    fitted.json['eigenvalues'],
    manifest_lib.load(str(index)).provenance.eigenvalues,
    rtol=1e-5,  # float32 sums over another number of parts.
  )
  made = influence_process(
    *flags(task_flags, basis, tmp_path / 'i', '--json'), devices=4
  )
  assert made.status == 0, made.stderr
  assert_same_index(index, tmp_path / 'i')


def test_second_run_has_nothing_to_do(influence, task_flags, basis, index):
  before = sorted(os.listdir(index / 'shards'))
  again = influence(*flags(task_flags, basis, index, '--range_size', 40))
  assert again.status == 0
  assert 'nothing to do' in again.stdout
  assert sorted(os.listdir(index / 'shards')) == before
  assert manifest_lib.generations(str(index)) == [1]


def test_lost_and_damaged_shards_are_made_again(
  influence, task_flags, basis, index, tmp_path
):
  command = flags(task_flags, basis, tmp_path, '--range_size', 40)
  influence(*command)
  shards = manifest_lib.load(str(tmp_path)).shards
  (tmp_path / 'shards' / shards[1].rows.name).unlink()
  (tmp_path / 'shards' / shards[4].vectors.name).unlink()
  assert influence('verify', '--index', tmp_path).status == 5
  assert influence(*command).status == 0
  assert influence('verify', '--index', tmp_path).status == 0
  assert manifest_lib.generations(str(tmp_path)) == [1, 2]
  repaired = manifest_lib.load(str(tmp_path)).shards
  changed = [a != b for a, b in zip(shards, repaired, strict=True)]
  assert [i for i, value in enumerate(changed) if value] == [1, 4]
  assert_same_index(index, tmp_path)


def test_only_ranges_of_a_changed_source_are_projected_again(
  influence, task_flags, basis, index, workdir, tmp_path
):
  """Another modification time stands for other content: safe, never stale."""
  shutil.copytree(workdir, tmp_path / 'w', ignore=lambda *_: ['index', 'basis'])
  task = [*task_flags[:-1], f'workdir={tmp_path / "w"}']
  command = flags(task, basis, tmp_path / 'i', '--range_size', 40)
  influence(*command)
  before = manifest_lib.load(str(tmp_path / 'i')).shards
  source = before[0].range.source_shard
  os.utime(tmp_path / 'w' / 'data' / 'points' / '1.0.0' / source)
  again = influence(*command, '--json').json
  assert (again['generation'], again['num_projected']) == (2, 101)
  after = manifest_lib.load(str(tmp_path / 'i')).shards
  for old, new in zip(before, after, strict=True):
    assert (old == new) == (old.range.source_shard != source)
  assert_same_index(index, tmp_path / 'i')


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_index(
  influence, task_flags, basis, index, tmp_path
):
  command = flags(task_flags, basis, tmp_path, '--range_size', 2)
  command = [str(item) for item in command]
  shards = tmp_path / 'shards'
  with subprocess.Popen(
    [sys.executable, '-m', 'launch', *command],
    cwd=ROOT,
    stderr=subprocess.DEVNULL,
  ) as process:
    deadline = time.monotonic() + 120
    while not shards.exists() or len(os.listdir(shards)) < 6:
      assert process.poll() is None
      assert time.monotonic() < deadline
      time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
  assert manifest_lib.generations(str(tmp_path)) == []
  committed = {
    name: os.stat(shards / name).st_mtime_ns
    for name in os.listdir(shards)
    if name.startswith('rows-') and '.tmp-' not in name
  }
  assert committed
  again = influence(*command)
  assert again.status == 0
  assert 'are there already' in again.stdout
  for name, time_written in committed.items():
    assert os.stat(shards / name).st_mtime_ns == time_written
  assert_same_index(index, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('fault', 'reason'),
  [('bad_example', 'no such thing'), ('nan_example', 'non-finite')],
)
def test_unusable_examples_are_listed_or_fail_the_job(
  influence, task_flags, tmp_path, fault, reason
):
  task = [*task_flags, '--task_arg', f'fault={fault}']
  small = ['--projection_dim', 2, '--num_iterations', 3, '--sample_size', 20]
  fitted = influence('fit-basis', *task, '--out', tmp_path / 'b', *small)
  assert fitted.status == 0, fitted.stderr
  command = flags(task, tmp_path / 'b', tmp_path / 'i')
  failed = influence(*command, '--max_rejected_fraction', 0)
  assert '3 of 303 examples were rejected' in failed.error_line
  assert reason in failed.error_line
  assert manifest_lib.generations(str(tmp_path / 'i')) == []
  made = influence(*command, '--max_rejected_fraction', 0.01, '--json')
  assert (made.json['num_examples'], made.json['num_rejected']) == (300, 3)
  manifest = manifest_lib.load(str(tmp_path / 'i'))
  table = pq.read_table(tmp_path / 'i' / manifest.rejected.name).to_pydict()
  assert all(name.endswith('__50') for name in table['id'])
  assert all(reason in text for text in table['reason'])
  assert influence('verify', '--index', tmp_path / 'i').status == 0


def make_plan(num_ranges):
  return plan_lib.Plan(
    manifest_lib.Provenance({}, '', (1.0,), {}),
    tuple(
      index_format.ExampleRange('f', i, i + 1, 'x') for i in range(num_ranges)
    ),
  )


def make_shard(example_range, name='a'):
  file = checked_files.StoredFile(name, 1, '0')
  return index_format.Shard(example_range, file, file, 1, 0)


def test_only_a_fulfilled_plan_is_published():
  plan = make_plan(3)
  shards = [make_shard(item) for item in plan.ranges]
  assert publishing.order_shards(plan, shards[::-1]) == tuple(shards)
  repeated = [*shards, shards[0]]
  assert publishing.order_shards(plan, repeated) == tuple(shards)
  with pytest.raises(errors.InputError, match='1 ranges of the plan are miss'):
    publishing.order_shards(plan, shards[:2])
  with pytest.raises(errors.InputError, match='1 are not part of it'):
    publishing.order_shards(make_plan(2), shards)
  other = make_shard(plan.ranges[0], 'b')
  with pytest.raises(errors.InputError, match='was committed as a and as b'):
    publishing.order_shards(plan, [*shards, other])


def test_graph_is_one_chain_with_one_leaf():
  """What every runner can do: no side input, no tag, no second output."""
  plan = make_plan(2)
  job = projection_job.ProjectionJob(
    plan,
    plan_lib.Changes(None, (), plan.ranges, 0, 0, None, False),
    projection_worker.ProjectionSettings(
      ProjectionRequest(TaskReference('a:b'), basis='', index=''),
      task_fingerprints={},
      basis_fingerprint='',
    ),
  )
  root = beam.Pipeline(runner='FnApiRunner')
  project_corpus.build_pipeline(root, job, plan_path='')
  consumers: dict = {}
  leaves = []

  class Visitor(beam_pipeline.PipelineVisitor):
    def visit_transform(self, node):
      assert not node.side_inputs
      assert len(node.outputs) == 1
      for value in node.inputs:
        consumers.setdefault(value, []).append(node)
      leaves.extend(node.outputs.values())

  root.visit(Visitor())
  assert all(len(nodes) == 1 for nodes in consumers.values())
  assert len([leaf for leaf in leaves if leaf not in consumers]) == 1
