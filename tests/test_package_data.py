"""What is installed has all that it reads: a clone hides what is missing."""

import fnmatch
import runpy
import subprocess

import setuptools

from tests.kit.devices import ROOT

# For people who read the repository.
_FOR_READERS = ('*.md', '*.png')


def test_every_file_of_the_packages_is_installed(monkeypatch):
  given = {}
  monkeypatch.setattr(setuptools, 'setup', given.update)
  monkeypatch.chdir(ROOT)
  runpy.run_path('setup.py')
  tracked = subprocess.run(
    ['git', 'ls-files', 'influence_core', 'pipeline', 'launch'],
    capture_output=True,
    check=True,
    text=True,
  ).stdout.split()
  assert len(tracked) > 300
  patterns = [
    f'{package}/{pattern}'
    for package, own in given['package_data'].items()
    for pattern in own
  ]
  for path in tracked:
    known = ['*.py', *_FOR_READERS, *patterns]
    assert any(fnmatch.fnmatch(path, pattern) for pattern in known), path
  for pattern in patterns:
    assert any(fnmatch.fnmatch(path, pattern) for path in tracked), pattern
