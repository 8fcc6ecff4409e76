"""The page of a report, used in a browser."""

import json

import pytest

from launch import cli
from tests.kit import browser as browser_kit, token_task
from tests.kit.browser import fixture_browser  # noqa: F401

NUM_EXAMPLES = 120
FIRST_PAGE = 48


@pytest.fixture(name='address', scope='module')
def fixture_address(index, tmp_path_factory):
  out = tmp_path_factory.mktemp('page') / 'report.html'
  arguments = [
    *('report', '--index', str(index), '--query_split', 'test[:2]'),
    *('--bad', 'half = 1', '--class_column', 'half', '--out', str(out)),
    *('--num_examples', str(NUM_EXAMPLES), '--json'),
  ]
  assert cli.main(arguments) == 0
  return f'file://{out}'


def shown(page):
  """Values of the cards that are seen, in their order."""
  cards = page.locator('#suspicious .card:visible')
  return [json.loads(x.get_attribute('data-values')) for x in cards.all()]


def status(page):
  return page.locator('#suspicious [role=status]').inner_text()


@pytest.mark.slow
def test_examples_are_searched_filtered_ordered_and_turned(browser, address):
  page = browser.open(address)
  assert status(page) == f'1 to {FIRST_PAGE} of {NUM_EXAMPLES}'
  assert len(shown(page)) == FIRST_PAGE
  first = shown(page)
  # The keyboard turns pages, and stops at both ends.
  page.keyboard.press('ArrowLeft')
  assert shown(page) == first
  page.keyboard.press('ArrowRight')
  assert status(page).startswith('49 to 96')
  assert shown(page)[0] not in first
  page.get_by_role('button', name='Next page').click()
  assert status(page).startswith('97 to 120')
  assert page.get_by_role('button', name='Next page').is_disabled()
  # Any number orders; the first page is shown then.
  page.get_by_label('Order').select_option('loss')
  losses = [values['loss'] for values in shown(page)]
  assert losses == sorted(losses, reverse=True)
  assert status(page).startswith('1 to 48')
  page.get_by_label('bad ones alone').check()
  assert {values['half'] for values in shown(page)} == {1}
  page.get_by_label('Search').fill('nothing has this')
  assert status(page) == '0 to 0 of 0'
  # Letters of a search turn no pages.
  page.get_by_label('Search').fill('points')
  page.keyboard.press('ArrowRight')
  assert status(page).startswith('1 to')
  assert not browser.problems


@pytest.mark.slow
@pytest.mark.parametrize('width', [1280, 390])
@pytest.mark.parametrize('dark', [False, True])
def test_it_can_be_read_by_everyone(browser, address, width, dark):
  page = browser.open(address, width=width, dark=dark)
  assert not browser_kit.violations(page)
  # Nothing is wider than the screen, and nothing moves once it is there.
  assert page.evaluate('document.documentElement.scrollWidth') <= width
  shift = page.evaluate(
    """new Promise((done) => new PerformanceObserver((list) => done(
      list.getEntries().reduce((sum, entry) => sum + entry.value, 0)
    )).observe({type: 'layout-shift', buffered: true}) ||
    setTimeout(() => done(0), 500))"""
  )
  assert shift == 0
  assert not browser.problems


@pytest.mark.slow
def test_without_scripts_all_examples_are_there(browser, address):
  page = browser.open(address, has_scripts=False)
  assert page.locator('#suspicious .card:visible').count() == NUM_EXAMPLES


@pytest.mark.slow
def test_light_and_dark_at_will(browser, address):
  page = browser.open(address, dark=True)
  ground = 'getComputedStyle(document.body).backgroundColor'
  dark = page.evaluate(ground)
  page.get_by_role('button', name='light or dark').click()
  assert page.evaluate(ground) == 'rgb(255, 255, 255)'
  page.get_by_role('button', name='light or dark').click()
  assert page.evaluate(ground) == dark


@pytest.mark.slow
def test_tokens_are_told_apart(browser, tmp_path):
  index = token_task.make_index(tmp_path)
  out = tmp_path / 'report.html'
  asked = ['--query_split', 'train[:2]', '--num_examples', '6', '--k', '2']
  command = ['report', '--index', str(index), '--out', str(out), *asked]
  assert cli.main([*command, '--tokens', '--json']) == 0
  page = browser.open(f'file://{out}')
  strongest = page.locator('b.for').first
  assert strongest.get_attribute('title')
  assert (
    page.evaluate(
      'getComputedStyle(document.querySelector("b.for")).backgroundColor'
    )
    != 'rgba(0, 0, 0, 0)'
  )
  assert not browser_kit.violations(page)
