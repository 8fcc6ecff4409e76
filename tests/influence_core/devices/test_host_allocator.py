import platform
import subprocess
import sys

import pytest

from influence_core.devices import host_allocator

pytestmark = pytest.mark.skipif(
  platform.libc_ver()[0] != 'glibc', reason='other libraries cannot be told'
)

SCRIPT = """
import resource
import numpy as np
import psutil
from influence_core.devices import host_allocator
{call}
def use():
  block = np.empty({mebibytes} * 2**20, np.uint8)
  block[::4096] = 1
before = psutil.Process().memory_info().rss
use()
kept = psutil.Process().memory_info().rss - before
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, kept)
"""
KEEP = 'assert host_allocator.keep_freed_memory()'


def used_twice(call, mebibytes):
  """Faults of pages the second time, and bytes kept after the first."""
  script = SCRIPT.format(call=call, mebibytes=mebibytes)
  done = subprocess.run(
    [sys.executable, '-c', script], capture_output=True, text=True, check=True
  )
  num_faults, kept = map(int, done.stdout.split())
  return num_faults, kept


def test_freed_memory_is_used_again_without_new_pages():
  # 64 MiB are 16,384 pages, or 32 huge ones.
  assert used_twice('', 64)[0] >= 32
  assert used_twice(KEEP, 64)[0] < 8


def test_memory_of_very_large_blocks_is_not_kept():
  assert used_twice(KEEP, 64)[1] > 60 << 20
  assert used_twice(KEEP, 1100)[1] < 60 << 20


def test_versions_without_such_thresholds_keep_everything(monkeypatch):
  told = {}

  class Libc:
    def mallopt(self, name, value):
      told[name] = value
      return int(name != host_allocator._M_MMAP_THRESHOLD)

  monkeypatch.setattr(host_allocator.ctypes, 'CDLL', lambda name: Libc())
  assert host_allocator.keep_freed_memory()
  assert told[host_allocator._M_MMAP_MAX] == 0
