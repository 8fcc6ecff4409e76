"""Whatever a store answers: what it says, or a refusal in one line."""

import json

import hypothesis
from hypothesis import strategies as st
import pytest

from influence_core import errors
from pipeline.index import manifest as manifest_lib
from pipeline.storage import checked_files, file_identity, files as storage
from tests.kit import object_store
from tests.pipeline.storage.test_object_store import url

ANY_VALUE = st.recursive(
  st.none() | st.booleans() | st.integers() | st.text(max_size=8),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=4), inner, max_size=3)
  ),
  max_leaves=5,
)
# Of an object, as the store describes it.
DESCRIPTION = {
  'kind': 'storage#object',
  'bucket': object_store.BUCKET,
  'name': 'd/a',
  'size': '3',
  'generation': '1',
  'updated': '2026-01-01T00:00:00.000Z',
  'etag': 'x',
  'crc32c': 'AAAAAA==',
}
OBJECTS = st.dictionaries(
  st.sampled_from([*DESCRIPTION]), ANY_VALUE, max_size=2
).map(lambda changed: {**DESCRIPTION, **changed})
ANSWERS = st.one_of(
  st.binary(max_size=40),
  (ANY_VALUE | OBJECTS).map(json.dumps).map(str.encode),
  st.lists(OBJECTS | ANY_VALUE, max_size=3)
  .map(lambda items: json.dumps({'kind': 'storage#objects', 'items': items}))
  .map(str.encode),
)
ASKED = {
  'entries': lambda: storage.entries(url('d')),
  'exists': lambda: storage.exists(url('d/a')),
  'bytes': lambda: storage.read_bytes(url('d/a')),
  'range': lambda: storage.read_range(url('d/a'), 1, 3),
  'identity': lambda: file_identity.identify(url('d/a')),
  'tree': lambda: file_identity.tree(url('d')),
  'json': lambda: checked_files.read_json(url('d/a')),
  'manifest': lambda: manifest_lib.load(url('d')),
}


@pytest.mark.parametrize('what', [*ASKED])
@hypothesis.settings(
  max_examples=25,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(st.sampled_from([200, 206, 404]), ANSWERS)
def test_any_answer_is_taken_or_refused(store, what, status, body):
  store.answer_all(status, body)
  refused = ''
  try:
    ASKED[what]()
  except (errors.InputError, FileNotFoundError) as error:
    refused = str(error)
  hypothesis.event('refused' if refused else 'taken')
  assert '\n' not in refused
