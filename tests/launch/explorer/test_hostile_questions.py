"""Whatever is sent to the explorer: an answer, or a refusal in one line."""

import base64
import contextlib
import io
import json

import hypothesis
from hypothesis import strategies as st
import numpy as np
import PIL.Image
import pytest
from starlette.testclient import TestClient

from influence_core import errors
from launch.explorer import questions, raw_form
from launch.explorer.app import Explorer
from pipeline.search.query_session import QuerySession
from pipeline.tasks import queries as query_lib
from tests.launch.explorer.test_explorer import ADDRESS, QUESTION

ANY_JSON = st.recursive(
  st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
  lambda inner: (
    st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
  ),
  max_leaves=8,
)
# A question of which some values are others.
QUESTIONS = st.dictionaries(
  st.sampled_from([*QUESTION, 'more']), ANY_JSON, max_size=4
).map(lambda changed: {**QUESTION, **changed})
RAW = {
  'tfds_id': 'f__0',
  'image': np.arange(48, dtype=np.uint8).reshape(4, 4, 3),
  'encoded': b'',
  'x': np.arange(3.0),
  'y': np.int8(3),
  'text': 'words',
}


def png() -> bytes:
  file = io.BytesIO()
  PIL.Image.new('RGB', (5, 5)).save(file, 'PNG')
  return file.getvalue()


RAW['encoded'] = png()


@pytest.fixture(scope='module', name='post')
def fixture_post(index):
  explorer = Explorer(QuerySession(str(index)))
  application = explorer.application(['127.0.0.1'])
  with TestClient(
    application, base_url=ADDRESS, raise_server_exceptions=False
  ) as client:
    client.get('/', params={'token': explorer.token})
    yield lambda content: client.post('/ask', content=content)


@contextlib.contextmanager
def one_line():
  """Either nothing, or an error that a person can read."""
  refused = ''
  try:
    yield
  except errors.InputError as error:
    refused = str(error)
  hypothesis.event('refused' if refused else 'taken')
  assert '\n' not in refused


@hypothesis.given(ANY_JSON | QUESTIONS)
def test_any_json_is_a_question_or_refused(content):
  with one_line():
    question = questions.parse(content)
    with question.queries(RAW):
      pass


@hypothesis.given(
  st.dictionaries(st.sampled_from([*RAW, 'z']), ANY_JSON | st.just(''))
)
def test_any_value_of_a_form_is_taken_or_refused(given):
  with one_line():
    found = raw_form.example_of(RAW, given)
    for name, value in found.items():
      assert type(value) is type(RAW[name])


@hypothesis.given(
  st.integers(0, len(png()) - 1), st.binary(min_size=1, max_size=8)
)
def test_damaged_images_are_taken_or_refused(place, patch):
  data = png()
  data = data[:place] + patch + data[place + len(patch) :]
  given = {'data': base64.b64encode(data).decode()}
  for field in ('image', 'encoded'):
    with one_line():
      raw_form.example_of(RAW, {field: given})


@hypothesis.given(
  st.sampled_from(['.parquet', '.arrow', '.jsonl', '.csv', '.npz', '.npy', '']),
  st.text(max_size=8),
  st.binary(max_size=200),
)
def test_any_uploaded_file_is_read_or_refused(suffix, name, data):
  file = {'name': name + suffix, 'data': base64.b64encode(data).decode()}
  with one_line():
    question = questions.parse({**QUESTION, 'source': 'file', 'file': file})
    with question.queries(RAW) as queries:
      list(query_lib.read_file(queries.queries))


@hypothesis.settings(max_examples=30)
@hypothesis.given(st.binary(max_size=60) | ANY_JSON.map(json.dumps))
def test_no_body_is_an_error_of_the_server(post, body):
  found = post(body)
  assert found.status_code in (202, 400)
  assert found.json().keys() <= {'job', 'error'}
