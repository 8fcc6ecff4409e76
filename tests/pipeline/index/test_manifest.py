import concurrent.futures
import dataclasses
import json

import pytest

from influence_core import errors
from pipeline.index import format as index_format, manifest as manifest_lib
from pipeline.storage import checked_files, files as storage, stored_objects

# As large as a row of two float32 with its header.
FILE = checked_files.StoredFile('a', 136, '0')


def provenance(basis='b'):
  return manifest_lib.Provenance(
    {'import_path': 'a:b', 'arguments': {}},
    basis,
    (0.1, 1e-300),
    {'dtype': 'float32'},
  )


def shards(count):
  return tuple(
    index_format.Shard(
      index_format.ExampleRange('f', i, i + 1, 'x'), FILE, FILE, 1, 0
    )
    for i in range(count)
  )


def test_reads_back_what_was_published(tmp_path):
  index = str(tmp_path)
  made = manifest_lib.publish(index, provenance(), shards(3), FILE)
  assert manifest_lib.load(index) == made
  assert (made.generation, made.num_examples, made.num_rejected) == (1, 3, 0)


def test_provenance_of_earlier_versions_knows_no_mean_curvature():
  made = dataclasses.replace(provenance(), mean_curvature=0.5)
  content = json.loads(json.dumps(dataclasses.asdict(made)))
  kind = manifest_lib.Provenance
  assert stored_objects.parse(kind, content, 'p') == made
  del content['mean_curvature']
  assert stored_objects.parse(kind, content, 'p') == provenance()


def test_same_content_is_published_once_and_generations_stay(tmp_path):
  index = str(tmp_path)
  manifest_lib.publish(index, provenance(), shards(3))
  assert manifest_lib.publish(index, provenance(), shards(3)).generation == 1
  assert manifest_lib.publish(index, provenance(), shards(2)).generation == 2
  assert manifest_lib.publish(index, provenance('c'), shards(2)).generation == 3
  assert manifest_lib.generations(index) == [1, 2, 3]
  assert manifest_lib.load(index).provenance.basis == 'c'


def test_racing_runs_publish_one_generation(tmp_path):
  index = str(tmp_path)
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    made = list(
      pool.map(
        lambda _: manifest_lib.publish(index, provenance(), shards(5)),
        range(8),
      )
    )
  assert {manifest.generation for manifest in made} == {1}
  assert manifest_lib.generations(index) == [1]


def test_unpublished_and_foreign_files_are_no_index(tmp_path):
  (tmp_path / 'manifest-1.json').write_text('{}')
  with pytest.raises(errors.InputError, match='it has no manifest; run'):
    manifest_lib.load(str(tmp_path))


def test_manifest_of_another_schema_is_refused(tmp_path):
  index = str(tmp_path)
  content = manifest_lib.publish(index, provenance(), shards(1)).to_json()
  content['schema_version'] = 99
  storage.create_exclusive(
    manifest_lib.path_of(index, 2), checked_files.encode_json(content)
  )
  with pytest.raises(errors.InputError, match='schema version 99, expected 2'):
    manifest_lib.load(index)
