"""`influence submit kubernetes`: a command as a Kubernetes manifest."""

from typing import Any

import yaml

from launch.cloud import cluster_job
from launch.flags.cluster import ClusterJob
from launch.output import console as console_lib


def run(console: console_lib.Console, *, job: ClusterJob) -> dict[str, Any]:
  """Prints the manifest, for kubectl apply -f -.

  Raises:
    errors.InputError: Something of the job is wrong.
  """
  manifests = cluster_job.kubernetes(job)
  console.print(yaml.safe_dump_all(manifests, sort_keys=False).rstrip())
  return {'manifests': manifests}
