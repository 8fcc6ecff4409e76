"""`influence generations`: the published states of an index."""

import datetime
from typing import Any

from launch.output import console as console_lib
from pipeline.index import format as index_format, manifest as manifest_lib
from pipeline.storage import files as storage


def run(console: console_lib.Console, *, index: str) -> dict[str, Any]:
  """Shows every generation, and how many shards of it are new."""
  path = storage.absolute(index)
  published = manifest_lib.generations(path)
  if not published:
    manifest_lib.load(path)  # Tells that nothing is published.
  entries = storage.entries(path)
  rows: list[dict[str, Any]] = []
  before: set[index_format.Shard] = set()
  for generation in published:
    manifest = manifest_lib.load(path, generation)
    name = manifest_lib.file_name(generation)
    when = datetime.datetime.fromtimestamp(entries[name].modified, datetime.UTC)
    shards = set(manifest.shards)
    rows.append(
      {
        'generation': generation,
        'published': when.isoformat(timespec='seconds'),
        'num_examples': manifest.num_examples,
        'num_rejected': manifest.num_rejected,
        'num_shards': len(shards),
        'num_new_shards': len(shards - before),
        'num_bytes': sum(
          shard.rows.num_bytes + shard.vectors.num_bytes for shard in shards
        ),
        'basis': manifest.provenance.basis,
      }
    )
    before = shards
  console.table(
    f'generations of {path}; readers take the last one',
    list(rows[0]),
    [[str(value) for value in row.values()] for row in rows],
  )
  return {'index': path, 'generations': rows}
