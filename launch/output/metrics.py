"""What a command did as metrics in Prometheus' text format.

Every number of a command's result (what --json prints) is a gauge; so they are
the same on every engine, and say what the manifest says.
"""

from collections.abc import Iterator, Mapping
import re
import time
from typing import Any

import prometheus_client

from pipeline.storage import files as storage


def check(path: str) -> None:
  """Checks that the file can be written, before any work.

  Raises:
    errors.InputError: It cannot.
  """
  storage.check_writable(storage.absolute(path).rpartition('/')[0])


def write(
  path: str,
  command: str,
  *,
  status: int,
  seconds: Mapping[str, float],
  result: Mapping[str, Any],
) -> None:
  """Writes the metrics of a command that has ended, replacing older ones.

  Args:
    path: file to write, local (as for the textfile collector of
      node_exporter) or gs://.
    command: its name, a label of every metric.
    status: its exit status.
    seconds: of its stages, by name.
    result: of the command; empty if it failed.

  Raises:
    errors.InputError: The file cannot be written.
  """
  registry = prometheus_client.CollectorRegistry()

  def gauge(name: str, about: str, value: float) -> None:
    metric = prometheus_client.Gauge(
      f'influence_{name}', about, ['command'], registry=registry
    )
    metric.labels(command).set(value)

  gauge('exit_status', 'Exit status of the last run.', status)
  gauge('finished_timestamp_seconds', 'When it ended.', time.time())
  stages = prometheus_client.Gauge(
    'influence_stage_seconds',
    'How long a stage took.',
    ['command', 'stage'],
    registry=registry,
  )
  for stage, value in seconds.items():
    stages.labels(command, stage).set(value)
  for name, value in _numbers(result):
    gauge(f'result_{name}', f'{name} of the result.', value)
  with storage.open_for_writing(storage.absolute(path)) as file:
    file.write(prometheus_client.generate_latest(registry))


def _numbers(
  result: Mapping[str, Any], prefix: str = ''
) -> Iterator[tuple[str, float]]:
  """Numbers of a result by names that Prometheus takes."""
  for key, value in result.items():
    name = re.sub(r'\W', '_', prefix + key)
    if isinstance(value, Mapping):
      yield from _numbers(value, f'{name}_')
    elif isinstance(value, (int, float)):
      yield name, float(value)
