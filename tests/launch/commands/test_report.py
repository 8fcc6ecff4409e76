"""Pages of indexes: what is on them, and what is refused."""

import html
import re

import numpy as np
import pytest

from launch.pages import cards, report_page
from launch.pages.report import Gallery, Report
from pipeline.search.shown_examples import Shown
from pipeline.storage import files as storage
from pipeline.tasks import display, loaded_task
from tests.kit import token_task

QUERIES = ('--query_split', 'test[:3]')


@pytest.fixture(name='report')
def fixture_report(influence, index, tmp_path):
  """The page, and what the command says; of arguments."""

  def run(*arguments, of=index):
    out = tmp_path / 'page.html'
    done = influence(
      'report', '--index', of, '--out', out, '--json', *arguments
    )
    return done, out.read_text() if out.exists() else ''

  return run


@pytest.fixture(name='token_index', scope='module')
def fixture_token_index(tmp_path_factory):
  return token_task.make_index(tmp_path_factory.mktemp('tokens'))


def sections(page):
  return re.findall('<section class="part" id="([a-z]+)"', page)


def test_everything_is_on_one_page(report):
  done, page = report(
    *(*QUERIES, '--bad', 'half = 1', '--class_column', 'half'),
    *('--num_examples', 20, '--k', 4),
  )
  assert done.status == 0, done.stderr
  assert (done.json['num_shown'], done.json['num_queries']) == (20, 3)
  assert [x for x in sections(page) if x != 'copies'] == [
    *('suspicious', 'bad', 'queries', 'classes', 'basis', 'index')
  ]
  assert page.count('data-words=') == 20
  assert page.count('<article') == 3
  cards_there = page.count('<li class="card"')
  assert cards_there == 20 + 3 * 2 * 4
  # Nothing is loaded from anywhere.
  names = 'http://www.w3.org/2000/svg', 'http://www.w3.org/1999/xlink'
  for name in names:
    page = page.replace(name, '')
  assert 'http' not in page
  assert not re.findall(r'(?:src|href)="(?!data:|#)', page)


def test_queries_may_be_left_out(report):
  done, page = report('--class_column', '')
  assert done.json['num_queries'] == 0
  assert sections(page) == ['suspicious', 'copies', 'basis', 'index']


def test_only_some_examples(report, index):
  _, page = report('--where', 'half = 1', '--num_examples', 9, *QUERIES)
  values = re.findall('data-values="(.*?)"', page)
  assert len(values) == 9
  assert all('"half": 1.0' in html.unescape(value) for value in values)


def test_rows_alone_need_neither_corpus_nor_model(report, monkeypatch):
  def fail(*arguments, **more):
    raise AssertionError('the task was loaded')

  monkeypatch.setattr(loaded_task.LoadedTask, 'unchecked', fail)
  done, page = report('--rows_only', '--num_examples', 5)
  assert done.status == 0, done.stderr
  assert page.count('data-words=') == 5


@pytest.mark.slow
def test_tokens_are_shaded(report, token_index, influence):
  asked = ('--query_split', 'train[:2]', '--num_examples', 6, '--k', 2)
  done, page = report(*asked, '--tokens', of=token_index)
  assert done.status == 0, done.stderr
  assert page.count('<b class="for"') > 6
  assert 'what it says to the query' in page
  _, plain = report(*asked, of=token_index)
  assert '<b class=' not in plain.partition('<main>')[2]
  # Texts are texts, tokens or not.
  text = re.search(r'<p class="text">(w\d+w\d+)', plain)
  assert text is not None


@pytest.mark.slow
def test_changes_since_the_generation_before(
  influence, report, task_flags, basis, tmp_path
):
  for split in ('train[:202]', 'train'):
    project = ['project', *task_flags, '--task_arg', f'split={split}']
    where = ['--basis', basis, '--index', tmp_path / 'i', '--range_size', 40]
    assert influence(*project, *where).status == 0
  _, page = report(of=tmp_path / 'i')
  assert sections(page)[-2:] == ['drift', 'index']
  assert 'Since generation 1' in page
  assert '<dt>added</dt><dd>101</dd>' in page


@pytest.mark.slow
def test_solved_queries_rank_no_examples(
  influence, report, task_flags, tmp_path
):
  """Vectors of queries know no self-influence."""
  solve = ('query-basis', *task_flags, *QUERIES, '--method', 'gradient')
  assert influence(*solve, '--out', tmp_path / 'b').status == 0
  where = ('--basis', tmp_path / 'b', '--index', tmp_path / 'i')
  assert influence('project', *task_flags, *where).status == 0
  done, page = report(*QUERIES, of=tmp_path / 'i')
  assert done.status == 0, done.stderr
  assert sections(page) == ['queries', 'index']
  # An inner product of gradients says nothing of other trainings.
  assert 'Trained without' not in page


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--bad', 'hlaf = 1'], '--bad'),
    (['--where', 'hlaf = 1'], 'the columns are id string'),
    (['--class_column', 'color'], "has no column 'color'"),
    (['--class_column', 'id'], 'too many for classes'),
    (['--aggregate', 'mean'], 'are given without queries'),
    (['--tokens', '--rows_only'], 'expected one of them'),
    (['--tokens'], 'has no tokens'),
    (['--num_examples', 0], 'num_examples is 0'),
  ],
)
def test_mistakes_are_told_in_one_line(report, arguments, message):
  done, page = report(*arguments)
  assert message in done.error_line
  assert not page


def test_other_files_are_refused(influence, index, tmp_path):
  for out in ('page.txt', index / 'page.html'):
    done = influence('report', '--index', index, '--out', tmp_path / out)
    assert 'error: ' in done.error_line


def test_it_can_be_written_to_a_store(influence, index, store):
  out = 'gs://bucket/pages/report.html'
  done = influence('report', '--index', index, '--out', out)
  assert done.status == 0, done.stderr
  with storage.open_for_reading(out) as file:
    assert file.read().startswith(b'<!doctype html>')


def test_what_examples_say_is_never_markup():
  evil = '"><script>alert(1)</script>{{ 1 }}'
  card = cards.make(
    {'id': evil, 'score': 1.0, 'label': evil, evil: 2.0},
    Shown([display.Piece(evil, evil * 2)], {evil: evil}),
  )
  page = report_page.render(
    Report(
      title=evil,
      sources=[],
      num_examples=1,
      made='now',
      gallery=Gallery([card], [evil], marks_bad=False),
    )
  )
  assert page.count('<script>') == 1
  assert 'alert(1)' in page
  assert '"><script' not in page


def test_shares_of_tokens_are_shaded_by_the_largest():
  tokens = [
    {'text': text, 'score': score}
    for text, score in (('a', 2.0), ('b', -1.0), ('c', 0.01))
  ]
  card = cards.make({'id': 'x', 'tokens': tokens}, None)
  np.testing.assert_allclose([x.shade for x in card.tokens], [1, -0.5, 0])


def test_text_of_tokens_is_shown_once():
  """With the marks of begin and end that a tokenizer adds."""
  tokens = [
    {'text': text, 'score': 1.0} for text in ('<s>', 'red', ' houses', '</s>')
  ]
  row = {'id': 'x', 'tokens': tokens, 'text': 'red houses', 'colour': 'red'}
  card = cards.make(row, None)
  assert card.facts == {'colour': 'red'}
