"""A worker gives what the plan is of, or refuses."""

import dataclasses
import shutil

import pytest

from influence_core import errors
from pipeline.index import format as index_format
from pipeline.projection import job as projection_job, worker
from pipeline.projection.request import ProjectionRequest
from pipeline.tasks.reference import TaskReference
from tests.kit import linear_task


@pytest.fixture(name='job')
def fixture_job(workdir, basis, tmp_path):
  """Of a corpus of its own, that may be changed."""
  copy = shutil.copytree(workdir, tmp_path / 'work')
  task = TaskReference(
    f'{linear_task.__name__}:make_task', {'workdir': str(copy)}
  )
  return projection_job.prepare(
    ProjectionRequest(task, str(basis), str(tmp_path / 'index'))
  )


def test_file_that_is_replaced_after_the_plan_is_refused(job, tmp_path):
  made = worker.ProjectionWorker(job.settings)
  first, second, *_ = job.changes.wanted
  assert made.project_range(first).range == first
  [file] = (tmp_path / 'work').rglob(second.source_shard)
  file.write_bytes(bytes(file.stat().st_size + 1))
  with pytest.raises(errors.InputError, match='changed after the plan'):
    made.project_range(second)
  assert index_format.find_shard(job.index, second) is None
  assert index_format.find_shard(job.index, first) is not None


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    ({'basis_fingerprint': 'another'}, 'run project again'),
    ({'task_fingerprints': {'parameters': 'others'}}, 'same code'),
  ],
)
def test_worker_of_another_plan_is_refused(job, changed, message):
  settings = dataclasses.replace(job.settings, **changed)
  with pytest.raises(errors.InputError, match=message):
    worker.ProjectionWorker(settings)
