"""Benchmarks run, in their small form: they are needed where this is not."""

import re

import pytest

from tests.benchmarks import (
  benchmark_accelerator,
)


@pytest.mark.slow
def test_page_of_an_accelerator(tmp_path):
  page = tmp_path / 'page.md'
  benchmark_accelerator.main(
    ['--dir', str(tmp_path), '--out', str(page), '--small']
  )
  text = page.read_text()
  assert re.search(r'\| mlp \| 4 \| float32 \| \d\.\de-0\d \|', text)
  # A step from JPEG files to an index is there with its device share.
  assert re.search(r'project, kronecker, processes 0 \| .* \| \d+% \|', text)
  assert re.search(r'\| fit, kronecker \| \d', text)
