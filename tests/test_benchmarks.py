"""Benchmarks run, in their small form: they are needed where this is not."""

import json
import re

import pytest

from tests.benchmarks import (
  benchmark_accelerator,
  benchmark_input,
  benchmark_scale,
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


@pytest.mark.slow
def test_scale_from_nothing_to_answers(tmp_path, capfd):
  benchmark_scale.main(['--dir', str(tmp_path), '--examples', '2000'])
  lines = [x for x in capfd.readouterr().out.splitlines() if x[0] == '{']
  rows = {row.get('what'): row for row in map(json.loads, lines)}
  assert 0 < rows['project']['device_share'] <= 1
  assert rows['topk, 256 queries']['seconds'] > 0
  assert rows[None]['index_bytes_per_example'] > 4 * 16


@pytest.mark.slow
def test_input_with_and_without_processes(tmp_path, capfd):
  few = ['--num_examples', '64', '--num_processes', '1']
  benchmark_input.main(['--dir', str(tmp_path), *few])
  lines = [x for x in capfd.readouterr().out.splitlines() if x[0] == '{']
  rows = [json.loads(line) for line in lines]
  assert [(x['corpus'], x['processes']) for x in rows] == [
    *(('photographs', 0), ('photographs', 1)),
    *(('texts', 0), ('texts', 1)),
    *(('points', 0), ('points', 1)),
  ]
