"""Linter, formatter and type checker are tests like all others."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize(
  'command', [['ruff', 'check'], ['ruff', 'format', '--check'], ['mypy']]
)
def test_passes(command):
  done = subprocess.run(
    [sys.executable, '-m', *command],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr


def test_files_stay_small():
  for layer in ('influence_core', 'pipeline', 'launch'):
    for path in (ROOT / layer).rglob('*.py'):
      assert len(path.read_text().splitlines()) <= 330, path
