"""What notebooks get of an index: tables, pages and plots."""

import html

import pyarrow as pa
import pytest

from pipeline import QuerySession, SearchRequest, open_index
from pipeline.search.answer import Answer, html_table


@pytest.fixture(name='answer')
def fixture_answer(index):
  return QuerySession(str(index)).ask('test[:2]', SearchRequest(k=3))


def test_tables_are_those_of_topk(influence, answer, index):
  asked = ('--query_split', 'test[:2]', '--k', 3, '--json')
  expected = influence('topk', '--index', index, *asked).json
  assert answer.results.to_pylist() == expected['results']
  assert answer.queries.to_pylist() == expected['queries']
  assert repr(answer) == '<Answer for 2 queries, 12 rows>'


def test_rows_of_a_query(answer):
  query_id = answer.queries['id'][1].as_py()
  for kind, sign in (('proponent', -1), ('opponent', 1)):
    rows = answer.of(query_id, kind).to_pylist()
    assert {row['query_id'] for row in rows} == {query_id}
    scores = [sign * row['score'] for row in rows]
    assert scores == sorted(scores)
    assert len(rows) == 3


def test_plot(answer):
  axes = answer.plot()
  first = answer.queries['id'][0].as_py()
  assert axes.get_title() == first
  widths = [bar.get_width() for bar in axes.patches]
  assert widths == sorted(widths, reverse=True)
  assert len(widths) == 6
  assert answer.plot(axes=axes) is axes


def test_notebooks_show_tables(answer, index):
  page = answer._repr_html_()
  assert page.count('<tr>') == 1 + 12
  many = Answer(answer.queries, pa.concat_tables([answer.results] * 9))
  assert '68 more rows' in many._repr_html_()
  page = open_index(str(index))._repr_html_()
  assert '303 examples' in page
  assert page.count('<tr>') == 1 + 5


def test_what_rows_say_is_never_markup():
  evil = '<script>alert(1)</script>'
  page = html_table(pa.table({evil: [evil, 'x' * 500], 'n': [0.123456, 2.0]}))
  assert '<script' not in page
  assert html.escape(evil) in page
  assert '0.1235' in page
  assert 'x' * 121 not in page


def test_suspicious_examples_are_a_table(influence, index):
  opened = open_index(str(index))
  command = ('self-influence', '--index', index, '--k', 5, '--json')
  assert opened.suspicious(5).to_pylist() == influence(*command).json['results']
  some = opened.suspicious(5, where='half = 1')
  assert set(some['half'].to_pylist()) == {1}
