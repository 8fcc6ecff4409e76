"""Tutorials run from the first cell to the last."""

import os
import subprocess
import sys

import PIL.Image
import pytest

from tests.conftest import ROOT
from tests.kit import text_corpus

TEXTS = {'DATASET': 'numbers', 'EPOCHS': '1', 'TRAIN_SPLIT': 'train[:40]'}


def run(name, out, **environment):
  """What a tutorial prints; its pictures are there afterwards."""
  done = subprocess.run(
    [sys.executable, ROOT / 'launch' / 'tutorials' / f'{name}.py'],
    cwd=ROOT,
    env={
      **os.environ,
      'PYTHONPATH': str(ROOT),
      'OUT': str(out),
      **environment,
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  pictures = sorted(out.glob('*.png'))
  assert pictures
  for picture in pictures:
    low, high = PIL.Image.open(picture).convert('L').getextrema()
    assert low < high
  return done.stdout


@pytest.mark.slow
def test_images(tmp_path):
  said = run('images', tmp_path)
  [line] = [x for x in said.splitlines() if 'have a wrong label' in x]
  # Chance would find 15 of the first 150.
  assert int(line.split()[0]) > 60
  assert (tmp_path / 'report.html').exists()


@pytest.mark.scale
@pytest.mark.parametrize('name', ['language_model', 'translation'])
def test_texts(name, tmp_path):
  text_corpus.prepare(tmp_path / 'data')
  out = tmp_path / 'out'
  said = run(name, out, DATA_DIR=str(tmp_path / 'data'), **TEXTS)
  assert '  by ' in said
  assert list(out.glob('*.html'))
