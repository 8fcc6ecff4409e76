"""Starts a Beam worker on a machine that has this package, without a container.

What a runner calls for a PROCESS environment, or a worker pool for each worker
of an EXTERNAL one: it fetches the pipeline's options from the runner, and turns
into the worker of Beam's Python SDK.
"""

import argparse
from collections.abc import Sequence
import os
import sys

from apache_beam.portability.api import (
  beam_provision_api_pb2,
  beam_provision_api_pb2_grpc,
  endpoints_pb2,
)
from google.protobuf import json_format, text_format
import grpc

# Arguments that runners give, some of them empty.
_ARGUMENTS = (
  'id',
  'logging_endpoint',
  'artifact_endpoint',
  'provision_endpoint',
  'control_endpoint',
)


def main(argv: Sequence[str] | None = None) -> None:
  """Becomes the worker; does not return."""
  parser = argparse.ArgumentParser(
    prog='influence-worker', description=__doc__.partition('\n')[0]
  )
  for name in _ARGUMENTS:
    parser.add_argument(f'--{name}', default='')
  arguments, _ = parser.parse_known_args(argv)
  arguments.id = arguments.id.strip("'")  # Prism puts it between quotes.
  # A pool never reads what its workers print, and a full pipe would stop them.
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
  program = [sys.executable, '-m', 'apache_beam.runners.worker.sdk_worker_main']
  os.execve(sys.executable, program, {**os.environ, **_environment(arguments)})


def _environment(arguments: argparse.Namespace) -> dict[str, str]:
  """What the worker reads its task from."""
  environment = {'WORKER_ID': arguments.id}
  control, logging = arguments.control_endpoint, arguments.logging_endpoint
  if arguments.provision_endpoint:
    info = _provision_info(arguments.provision_endpoint, arguments.id)
    control = control or info.control_endpoint.url
    logging = logging or info.logging_endpoint.url
    environment['PIPELINE_OPTIONS'] = json_format.MessageToJson(
      info.pipeline_options
    )
    environment['RUNNER_CAPABILITIES'] = ' '.join(info.runner_capabilities)
  environment['CONTROL_API_SERVICE_DESCRIPTOR'] = _descriptor(control)
  if logging:
    environment['LOGGING_API_SERVICE_DESCRIPTOR'] = _descriptor(logging)
  return environment


def _provision_info(
  endpoint: str, worker_id: str
) -> beam_provision_api_pb2.ProvisionInfo:
  with grpc.insecure_channel(endpoint) as channel:
    stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
    return stub.GetProvisionInfo(
      beam_provision_api_pb2.GetProvisionInfoRequest(),
      metadata=[('worker_id', worker_id)],
    ).info


def _descriptor(url: str) -> str:
  return text_format.MessageToString(
    endpoints_pb2.ApiServiceDescriptor(url=url)
  )
