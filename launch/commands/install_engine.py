"""`influence install-engine`: what an engine of another language needs."""

from typing import Any

from launch.output import console as console_lib
from pipeline.beam import engine_files


def run(console: console_lib.Console, *, engine: str) -> dict[str, Any]:
  """Fetches it, unless it is there."""
  installed = engine_files.install(engine)
  path = engine_files.path(engine)
  state = 'is installed' if installed else 'was installed already'
  console.print(f'{engine} {state}: {path}')
  return {'engine': engine, 'path': path, 'installed': installed}
