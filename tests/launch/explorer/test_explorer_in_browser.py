"""The explorer as its readers use it, over a real connection."""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

from playwright import sync_api
import pytest

from tests.conftest import ROOT
from tests.kit import browser as browser_kit
from tests.kit.browser import fixture_browser  # noqa: F401

# Milliseconds, on a machine with other work.
TIMEOUT = 60_000


@pytest.fixture(name='server', scope='module')
def fixture_server(index):
  command = [sys.executable, '-m', 'launch', 'explore', '--index', str(index)]
  with subprocess.Popen(
    command,
    cwd=ROOT,
    env={**os.environ, 'PYTHONUNBUFFERED': '1'},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    line = process.stdout.readline()
    yield (
      process,
      re.fullmatch(r'open (http://127\.0\.0\.1:\d+/\?token=.+)\n', line)[1],
    )
    process.kill()


@pytest.mark.slow
def test_only_this_machine_and_only_with_the_token(server):
  _, address = server
  with pytest.raises(urllib.error.HTTPError, match='403'):
    urllib.request.urlopen(address.partition('?')[0])


@pytest.mark.slow
def test_a_taken_port_is_refused(server, influence, index):
  _, address = server
  port = re.search(r':(\d+)/', address)[1]
  found = influence('explore', '--index', index, '--port', port)
  assert f'cannot listen on 127.0.0.1 port {port}' in found.error_line
  found = influence('explore', '--index', index, '--port', 99999)
  assert 'choose another --host or --port' in found.error_line


@pytest.mark.slow
def test_a_reader_finds_and_asks_on(browser, server):
  _, address = server
  page = browser.open(address)
  assert 'token' not in page.url
  page.get_by_label('a split').check()
  page.get_by_label('Split', exact=True).fill('test[:2]')
  page.get_by_role('button', name='Ask', exact=True).click()
  page.wait_for_selector('#answer article')
  assert page.locator('#answer article').count() == 2
  assert 'answered in' in page.locator('#status').inner_text()
  assert not browser_kit.violations(page)
  # An example that was found is asked about in its turn, by keyboard too.
  found = page.locator('#answer button.id').first
  example_id = found.inner_text()
  found.focus()
  page.keyboard.press('Enter')
  asked = page.locator('#answer article:only-of-type .asked .id')
  sync_api.expect(asked).to_have_text(example_id, timeout=TIMEOUT)
  # One of one's own, made of the fields of the corpus.
  page.get_by_label('one of your own').check()
  page.get_by_label('y', exact=True).fill('2.5')
  page.get_by_role('button', name='Ask', exact=True).click()
  sync_api.expect(asked).to_have_text('query__0', timeout=TIMEOUT)
  with page.expect_download() as kept:
    page.get_by_role('link', name='results.csv').click()
  assert kept.value.suggested_filename == 'results.csv'
  # What cannot be asked is said beside the button, and the page goes on.
  page.get_by_label('y', exact=True).fill('much')
  page.get_by_role('button', name='Ask', exact=True).click()
  status = page.locator('#status')
  sync_api.expect(status).to_contain_text('a number', timeout=TIMEOUT)
  page.get_by_role('button', name='Show suspicious examples').click()
  page.wait_for_selector('#answer [data-gallery] .card:not([hidden])')
  assert not browser_kit.violations(page)
  assert not browser.problems


@pytest.mark.slow
def test_an_interrupt_ends_it_quietly(server):
  process, _ = server
  process.send_signal(signal.SIGINT)
  assert process.wait(30) == 0
  assert 'Traceback' not in process.stderr.read()
