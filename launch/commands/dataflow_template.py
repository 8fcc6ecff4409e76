"""`influence dataflow-template`: the file that jobs are launched from."""

import json
from typing import Any

from launch.cloud import flex_template
from launch.output import console as console_lib
from pipeline.storage import files as storage


def run(
  console: console_lib.Console, *, image: str, out: str
) -> dict[str, Any]:
  """Writes the template file, replacing an older one."""
  content = flex_template.specification(image)
  with storage.open_for_writing(storage.absolute(out)) as file:
    file.write(json.dumps(content, indent=2).encode())
  console.print(f'wrote {out}; launch it with submit dataflow --template {out}')
  return {'out': out, 'num_parameters': len(content['metadata']['parameters'])}
