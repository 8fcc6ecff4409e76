"""Chromium without a window, as readers of pages have one with."""

import shutil

from axe_playwright_python import sync_playwright
from playwright import sync_api
import pytest

_NAMES = ('chromium', 'chromium-browser', 'google-chrome')


class Browser:
  """Opens pages, and hears what goes wrong on them.

  Attributes:
    problems: what was written to the console, and errors of scripts.
  """

  def __init__(self, chromium):
    self._chromium = chromium
    self.problems = []

  def open(self, address, *, width=1280, dark=False, has_scripts=True):
    """The page at an address, as Playwright has it."""
    context = self._chromium.new_context(
      viewport={'width': width, 'height': 900},
      color_scheme='dark' if dark else 'light',
      java_script_enabled=has_scripts,
    )
    page = context.new_page()
    page.on('console', lambda message: self.problems.append(message.text))
    page.on('pageerror', lambda error: self.problems.append(str(error)))
    page.goto(address)
    return page


def violations(page):
  """What axe-core finds against the guidelines on a page."""
  found = sync_playwright.Axe().run(page)
  return found.generate_report() if found.violations_count else ''


@pytest.fixture(name='browser')
def fixture_browser():
  found = [path for name in _NAMES if (path := shutil.which(name))]
  if not found:
    pytest.skip('there is no Chromium; apt-get install chromium')
  with sync_api.sync_playwright() as program:
    chromium = program.chromium.launch(
      executable_path=found[0], args=['--no-sandbox']
    )
    yield Browser(chromium)
    chromium.close()
