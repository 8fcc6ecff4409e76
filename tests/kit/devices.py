"""Programs in processes of their own, which see as many devices as wanted."""

import os
from pathlib import Path
import subprocess
import sys

ROOT = Path(__file__).parents[2]
# Programs of tests are small: compiling them well takes longer than running
# them as they are.
HASTY = (
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
)


def xla_flags(num_devices: int) -> str:
  """What a process is started with that is to see as many devices."""
  return f'{HASTY} --xla_force_host_platform_device_count={num_devices}'


def run_module(
  module: str, *arguments, num_devices: int
) -> subprocess.CompletedProcess[str]:
  """Runs `python -m module` to its end, whatever that is."""
  return subprocess.run(
    [sys.executable, '-m', module, *map(str, arguments)],
    cwd=ROOT,
    env={**os.environ, 'XLA_FLAGS': xla_flags(num_devices)},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
