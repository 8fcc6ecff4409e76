"""The explorer: the same answers as `topk`, for those with the token alone."""

import base64
import io
import time

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from launch.explorer.app import Explorer
from pipeline import TfdsCorpus
from pipeline.search.query_session import QuerySession
from tests.kit import corpus_files, token_task

ADDRESS = 'http://127.0.0.1:8000'
QUESTION = {
  'source': 'split',
  'ids': '',
  'split': 'test[:3]',
  'fields': {},
  'file': {},
  'where': '',
  'layers': '',
  'normalization': 'none',
  'damping': '',
  'k': 4,
  'tokens': False,
}


@pytest.fixture(name='explorer')
def fixture_explorer(index):
  return Explorer(QuerySession(str(index)))


@pytest.fixture(name='client')
def fixture_client(explorer):
  application = explorer.application(['127.0.0.1', 'localhost'])
  with TestClient(application, base_url=ADDRESS) as client:
    yield client


@pytest.fixture(name='ask')
def fixture_ask(explorer, client):
  """What a question ends with."""
  client.get('/', params={'token': explorer.token})

  def run(path='/ask', **changed):
    started = client.post(path, json={**QUESTION, **changed})
    if started.status_code != 202:
      return started.json()
    job = started.json()['job']
    for _ in range(1200):
      found = client.get(f'/jobs/{job}').json()
      if found['state'] in ('done', 'failed'):
        return {**found, 'job': job}
      time.sleep(0.05)
    raise AssertionError('it was never answered')

  return run


def table_of(client, found):
  data = client.get(f'/jobs/{found["job"]}/results.parquet').content
  return pq.read_table(io.BytesIO(data))


def test_answers_are_those_of_topk(influence, client, ask, index):
  found = ask(where='half = 1')
  assert found['state'] == 'done', found
  expected = influence(
    *('topk', '--index', index, '--query_split', 'test[:3]', '--k', 4),
    *('--where', 'half = 1', '--exclude_self', '--json'),
  ).json['results']
  table = table_of(client, found)
  assert table.select(['query_id', 'kind', 'id']).to_pylist() == [
    {name: row[name] for name in ('query_id', 'kind', 'id')} for row in expected
  ]
  # The same projections in a batch of the same size.
  np.testing.assert_allclose(
    table['score'].to_numpy(), [row['score'] for row in expected], rtol=1e-6
  )
  assert found['html'].count('<article') == 3
  as_text = client.get(f'/jobs/{found["job"]}/results.csv').content
  assert pyarrow.csv.read_csv(io.BytesIO(as_text)).num_rows == len(expected)


def test_all_ways_to_name_a_query_agree(client, ask, workdir, tmp_path):
  split = table_of(client, ask(split='test[:1]'))
  [query_id] = set(split['query_id'].to_pylist())
  by_id = table_of(client, ask(source='ids', ids=f' {query_id} '))
  [raw] = TfdsCorpus(
    'points', 'test[:1]', str(workdir / 'data')
  ).read_positions([0])
  x, y = (np.stack([raw[1][name]]) for name in ('x', 'y'))
  corpus_files.write_file('jsonl', tmp_path / 'q.jsonl', x, y)
  data = base64.b64encode((tmp_path / 'q.jsonl').read_bytes()).decode()
  file = {'name': '../../q.jsonl', 'data': data}
  uploaded = table_of(client, ask(source='file', file=file))
  fields = {'x': str(x[0].tolist()), 'y': str(y[0])}
  typed = table_of(client, ask(source='fields', fields=fields))
  for other in (by_id, uploaded, typed):
    assert other['id'].to_pylist() == split['id'].to_pylist()
    np.testing.assert_allclose(
      other['score'].to_numpy(), split['score'].to_numpy(), rtol=1e-5
    )


def test_training_examples_are_not_their_own_answer(client, ask, index):
  found = ask(source='ids', ids='points-train.array_record-00000-of-00003__5')
  table = table_of(client, found)
  assert not set(table['query_id'].to_pylist()) & set(table['id'].to_pylist())


def test_suspicious_examples_and_the_form(ask):
  found = ask('/suspicious')
  assert found['html'].count('<li class="card"') == 96
  assert not found['has_results']
  form = ask('/form')['html']
  assert 'name="x" data-kind="numbers"' in form
  assert 'name="y" data-kind="number"' in form


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    ({'source': 'elsewhere'}, 'expected ids, split, fields or file'),
    ({'source': 'ids', 'ids': 'nothing'}, 'expected ids such as'),
    ({'source': 'ids'}, 'queries are given by nothing'),
    ({'split': 'absent[:3]'}, 'absent'),
    ({'source': 'fields', 'fields': {'y': 'much'}}, 'expected a number'),
    ({'source': 'fields', 'fields': {'z': '1'}}, 'not one of the corpus'),
    (
      {'source': 'file', 'file': {'name': 'q.pkl', 'data': ''}},
      'expected one of .parquet',
    ),
    (
      {'source': 'file', 'file': {'name': 'q.npz', 'data': 'AAAA'}},
      'uploaded.npz',
    ),
    ({'where': 'hlaf = 1'}, 'the columns are id string'),
    ({'where': "id in (select content from read_text('/etc/hosts'))"}, 'where'),
    ({'layers': 'Conv'}, 'knows no layers'),
    ({'damping': 'much'}, 'expected a number such as 0.01'),
    ({'normalization': 'both'}, "normalization is 'both'"),
    ({'k': 0}, 'k is 0, expected 1 to 100'),
    ({'k': True}, 'k is bool, expected int'),
    ({'where': None}, 'where is NoneType, expected str'),
    ({'tokens': True}, 'has no tokens'),
  ],
)
def test_what_cannot_be_asked_is_told_in_a_line(ask, changed, message):
  found = ask(**changed)
  assert message in found['error']
  assert '\n' not in found['error']
  assert ask()['state'] == 'done'  # And the next question is answered.


@pytest.mark.parametrize(
  ('method', 'path'),
  [
    ('GET', '/'),
    ('POST', '/ask'),
    ('POST', '/form'),
    ('POST', '/suspicious'),
    ('GET', '/jobs/x'),
    ('GET', '/jobs/x/results.csv'),
  ],
)
def test_nothing_is_answered_without_the_token(explorer, client, method, path):
  for cookies in ({}, {'influence_8000': 'guessed'}, {'influence_1': 'x'}):
    client.cookies = cookies
    found = client.request(method, path)
    assert found.status_code == 403
    assert 'open the address' in found.json()['error']
  assert client.get('/', params={'token': 'guessed'}).status_code == 403
  client.cookies = {'influence_8000': explorer.token}
  assert client.request(method, path).status_code != 403


def test_other_names_of_the_server_are_refused(explorer, client):
  """As of a page elsewhere, whose name has become this machine's address."""
  asked = {'token': explorer.token}
  evil = client.get('/', params=asked, headers={'host': 'evil.example'})
  assert evil.status_code == 400


def test_the_cookie_and_what_a_page_may_do(explorer, client):
  arrived = client.get(
    '/', params={'token': explorer.token}, follow_redirects=False
  )
  assert arrived.status_code == 303
  assert arrived.headers['location'] == '/'
  cookie = arrived.headers['set-cookie']
  assert 'HttpOnly' in cookie
  assert 'SameSite=strict' in cookie
  page = client.get('/')
  policy = page.headers['content-security-policy']
  assert "default-src 'none'" in policy
  [nonce] = {x.split("'")[0] for x in policy.split("'nonce-")[1:]}
  assert f'<script nonce="{nonce}">' in page.text
  assert nonce not in client.get('/').text


def test_questions_of_any_size_and_form(ask, client):
  large = client.post('/ask', content=b'x' * (33 << 20))
  assert 'more than 32 MiB' in large.json()['error']
  for content in (b'', b'[' * 100_000, b'[1]', b'\xff'):
    found = client.post('/ask', content=content)
    assert found.status_code == 400, content[:10]
  assert ask()['state'] == 'done'


def test_questions_that_are_no_longer_known(ask, client):
  found = client.get('/jobs/absent')
  assert (found.status_code, found.json()['error'][:13]) == (
    400,
    'this question',
  )
  job = ask('/suspicious')['job']
  assert 'no results' in client.get(f'/jobs/{job}/results.csv').json()['error']
  job = ask()['job']
  assert 'is not kept' in client.get(f'/jobs/{job}/shards').json()['error']


def test_index_of_token_rows_is_refused_at_start(influence, tmp_path):
  index = token_task.make_index(tmp_path, project=['--per_token'])
  line = influence('explore', '--index', index).error_line
  assert 'has a row for each token; explore needs one of whole' in line
