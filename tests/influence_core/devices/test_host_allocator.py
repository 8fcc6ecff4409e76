import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
from influence_core.devices import host_allocator
{call}
def use():
  block = bytearray(64 * 2**20)
  block[::4096] = bytes(len(block[::4096]))
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
  platform.libc_ver()[0] != 'glibc', reason='other libraries cannot be told'
)
def test_freed_memory_is_used_again_without_new_pages():
  def num_faults(call):
    script = SCRIPT.format(call=call)
    done = subprocess.run(
      [sys.executable, '-c', script], capture_output=True, text=True, check=True
    )
    return int(done.stdout)

  # 64 MiB are 16,384 pages, or 32 huge ones.
  assert num_faults('') >= 32
  assert num_faults('assert host_allocator.keep_freed_memory()') < 8
