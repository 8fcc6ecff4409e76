"""`influence explore`: an index as a page to ask questions on."""

import contextlib
import socket
from typing import Any

import uvicorn

from influence_core import errors
from influence_core.projection.options import ProjectionOptions
from launch.explorer.app import Explorer
from launch.output import console as console_lib
from pipeline.search.query_session import QuerySession
from pipeline.tasks.reference import TaskReference

_LOOPBACK = ('127.0.0.1', 'localhost')


def run(
  console: console_lib.Console,
  *,
  task: TaskReference | None,
  indexes: list[str],
  scales: list[float] | None,
  bases: list[str] | None,
  projection_options: ProjectionOptions,
  host: str,
  port: int,
) -> dict[str, Any]:
  """Serves the page until it is interrupted."""
  session = QuerySession(
    indexes, task, basis=bases, scales=scales, options=projection_options
  )
  for member in session.index.members:
    member.index.check_examples('explore')
  listener = _listen(host, port)
  explorer = Explorer(session)
  is_local = host in _LOOPBACK
  application = explorer.application([*_LOOPBACK] if is_local else ['*'])
  if not is_local:
    console.warn(
      f'other machines can reach {host}: whoever has the address below may ask '
      'the index, and what is sent is not encrypted'
    )
  port = listener.getsockname()[1]
  address = f'http://{host}:{port}/?token={explorer.token}'
  console.print(f'open {address}')
  console.print('Ctrl-C ends it')
  server = uvicorn.Server(
    uvicorn.Config(application, log_level='error', access_log=False)
  )
  with contextlib.suppress(KeyboardInterrupt):
    server.run(sockets=[listener])
  return {'address': address}


def _listen(host: str, port: int) -> socket.socket:
  """A socket that listens there.

  Raises:
    errors.InputError: Nobody can.
  """
  listener = socket.socket()
  listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  try:
    listener.bind((host, port))
    # From now on whoever comes is kept waiting, not sent away.
    listener.listen()
  except (OSError, OverflowError) as error:
    listener.close()
    raise errors.InputError(
      f'cannot listen on {host} port {port} ({errors.first_line(error)}); '
      'choose another --host or --port'
    ) from error
  return listener
