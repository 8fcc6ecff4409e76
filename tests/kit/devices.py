"""Programs in processes of their own, which see as many devices as wanted."""

import os
from pathlib import Path
import subprocess
import sys

ROOT = Path(__file__).parents[2]


def run_module(
  module: str, *arguments, num_devices: int
) -> subprocess.CompletedProcess[str]:
  """Runs `python -m module` to its end, whatever that is."""
  return subprocess.run(
    [sys.executable, '-m', module, *map(str, arguments)],
    cwd=ROOT,
    env={
      **os.environ,
      'XLA_FLAGS': f'--xla_force_host_platform_device_count={num_devices}',
    },
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
