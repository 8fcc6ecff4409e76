"""Numbers for monitoring, and logs for log services."""

import json

from prometheus_client import parser
import pytest

from launch.commands import verify
from launch.output.exit_status import ExitStatus
from tests.kit import linear_task
from tests.pipeline.beam.test_project_corpus import flags


def samples(path):
  return {
    (sample.name, sample.labels.get('stage')): sample.value
    for family in parser.text_string_to_metric_families(path.read_text())
    for sample in family.samples
  }


def test_metrics_are_those_of_the_result(
  influence, task_flags, basis, tmp_path
):
  file = tmp_path / 'metrics' / 'project.prom'
  command = flags(task_flags, basis, tmp_path / 'i', '--range_size', 40)
  done = influence(*command, '--json', '--metrics_file', file)
  found = samples(file)
  for name, value in done.json.items():
    if isinstance(value, (int, float)):
      assert found[f'influence_result_{name}', None] == value
  assert found['influence_result_num_examples', None] == linear_task.NUM_TRAIN
  assert found['influence_exit_status', None] == 0
  assert found['influence_stage_seconds', 'project'] > 0


def test_failure_has_metrics_too(influence, tmp_path):
  file = tmp_path / 'm'
  found = influence('verify', '--index', 'absent', '--metrics_file', file)
  assert 'no index at' in found.error_line
  assert samples(file)['influence_exit_status', None] == ExitStatus.FAILED


@pytest.mark.parametrize('is_gone', [False, True])
def test_defect_has_metrics_and_its_traceback(
  influence, index, monkeypatch, tmp_path, is_gone
):
  file = tmp_path / 'metrics' / 'm'
  command = ['verify', '--index', index, '--metrics_file', file]
  assert influence(*command).status == 0

  def fail(*_, **__):
    if is_gone:  # The metrics cannot be written either.
      file.unlink()
      file.parent.rmdir()
      file.parent.touch()
    raise ZeroDivisionError('a defect')

  monkeypatch.setattr(verify, 'run', fail)
  with pytest.raises(ZeroDivisionError, match='a defect'):
    influence(*command)
  if not is_gone:
    assert samples(file)['influence_exit_status', None] == ExitStatus.FAILED
    assert not any('result' in name for name, _ in samples(file))


def test_metrics_file_is_tried_before_work(influence, index):
  found = influence('verify', '--index', index, '--metrics_file', '/proc/m/x')
  assert 'cannot write to /proc/m' in found.error_line
  assert 'state=done' not in found.stderr


def test_log_lines_are_json(influence, index):
  lines = influence('verify', '--index', index, '--log_json').stderr
  (line,) = map(json.loads, lines.splitlines())
  assert line['severity'] == 'INFO'
  assert line['stage'] == 'verify'
  assert line['state'] == 'done'
  assert line['seconds'] >= 0
  (error,) = map(
    json.loads,
    influence('verify', '--index', 'absent', '--log_json').stderr.splitlines(),
  )
  assert error['severity'] == 'ERROR'
  assert error['message'].startswith('no index at')
