"""`influence submit kubernetes`: a command as a Kubernetes manifest."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from launch.cloud import cluster_job
from launch.output import console as console_lib


def run(
  console: console_lib.Console,
  *,
  command: Sequence[str],
  label: Mapping[str, str],
  job_name: str,
  **job: Any,
) -> dict[str, Any]:
  """Prints the manifest, for kubectl apply -f -.

  Raises:
    errors.InputError: Something of the job is wrong.
  """
  manifests = cluster_job.kubernetes(
    cluster_job.ClusterJob(
      name=job_name, command=tuple(command), labels=label, **job
    )
  )
  console.print(yaml.safe_dump_all(manifests, sort_keys=False).rstrip())
  return {'manifests': manifests}
