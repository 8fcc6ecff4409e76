"""What an accelerator makes of it, as a page: kernels, fits, the whole way.

    python -m tests.benchmarks.benchmark_accelerator --dir D --out page.md

Runs where a GPU or a TPU is, and on a CPU. Kernels are those of
`benchmark_projection`: the loop of JVPs, the plain gradient of a batch, Arnoldi
with 50 and 100 pairs, and 256 coordinates of each layer, with the share of the
peak of matrix products that was measured in the same run, and errors against
exact JVPs for bases in float32 and bfloat16. The whole way is from JPEG files
to an index, by the commands themselves, with the share of time that the device
works. --small is the same on little.
"""

import argparse
from collections.abc import Iterator
import os
from pathlib import Path
from typing import Any

import jax

from launch.reproduce import results_page
from tests.benchmarks import benchmark_projection, input_tasks
from tests.benchmarks.benchmark_full_size import run_command

_TASK = 'tests.benchmarks.accelerator_tasks:make_task'
_DTYPES = ('float32', 'bfloat16')


def main(argv: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--dir', type=Path, required=True, help='for all files')
  parser.add_argument('--out', type=Path, required=True, help='of the page')
  parser.add_argument('--small', action='store_true')
  flags = parser.parse_args(argv)
  lines = [*_machine(), *_kernels(flags.small)]
  lines += _whole_way(flags.dir.absolute(), flags.small)
  flags.out.write_text('\n'.join(lines))
  print(f'figures are in {flags.out}')


def _machine() -> list[str]:
  """In a process of its own: this one must not take the device."""
  found = benchmark_projection.in_own_process(describe_device)
  return [
    f'# {found["num_devices"]} x {found["device"]}',
    '',
    f'JAX {jax.__version__}, {os.cpu_count()} cores.',
    '',
  ]


def describe_device() -> dict[str, Any]:
  devices = jax.local_devices()
  return {'device': devices[0].device_kind, 'num_devices': len(devices)}


def _kernels(small: bool) -> list[str]:
  models = ['mlp'] if small else list(benchmark_projection.MODELS)
  rates, errors = [], []
  for model in models:
    for dim in (4,) if small else (50, 100):
      for dtype in _DTYPES[:1] if small else _DTYPES:
        found = benchmark_projection.in_own_process(
          benchmark_projection.measure, model, dim, _flags(small, dtype)
        )
        errors.append([model, str(dim), dtype, f'{found["error"]:.1e}'])
        if dtype == 'float32':
          rates.append(_kernel_row(found))
  return [
    '## Kernels',
    '',
    'Examples/s; share of the peak is that of the float32 products that the',
    'projection on eigenpairs cannot avoid.',
    '',
    *results_page.table(
      [
        *('model', 'K', 'JVP loop', 'gradient', 'eigenpairs', 'of the peak'),
        *('x JVP loop', '256 a layer', 'x gradient'),
      ],
      rates,
    ),
    '## Errors',
    '',
    'Largest difference from JVPs, relative to the largest entry.',
    '',
    *results_page.table(['model', 'K', 'basis', 'error'], errors),
  ]


def _flags(small: bool, basis_dtype: str) -> argparse.Namespace:
  return argparse.Namespace(
    batch_size=8 if small else 128,
    basis_dtype=basis_dtype,
    rounds=2 if small else 5,
    device=None,
    coordinates_per_layer=256,
  )


def _kernel_row(found: dict[str, Any]) -> list[str]:
  rates = found['examples_per_second']
  return [
    found['model'],
    str(found['projection_dim']),
    f'{rates["jvp"]:,.1f}',
    f'{rates["training"]:,.0f}',
    f'{rates["ours"]:,.0f}',
    f'{found["fraction_of_peak"]:.0%}',
    f'{found["ratio_to_jvp"]:.1f}',
    f'{rates["kronecker"]:,.0f}',
    f'{found["kronecker_to_training"]:.2f}',
  ]


def _whole_way(directory: Path, small: bool) -> list[str]:
  """Fits and projects, with and without processes that read ahead."""
  num_examples = 48 if small else 20_000
  photographs = directory / f'photographs-{num_examples}'
  if not photographs.exists():
    input_tasks.write_photographs(photographs, num_examples)
  task = ['--task', _TASK, '--task_arg', f'path={photographs}']
  if small:
    task += ['--task_arg', 'width=24', '--task_arg', 'num_layers=1']
  return [
    '## From JPEG files to an index',
    '',
    f'ViT-S/16 on {num_examples:,} images of 224 pixels.' if not small else '',
    '',
    *results_page.table(
      ['step', 'examples/s', 'seconds', 'device share', 'peak GiB'],
      list(_steps(directory, task, small)),
    ),
  ]


def _steps(
  directory: Path, task: list[str], small: bool
) -> Iterator[list[str]]:
  sample = 16 if small else 4096
  methods = {'kronecker': ['--coordinates_per_layer', '8' if small else '256']}
  if not small:
    methods['arnoldi'] = ['--projection_dim', '50']
  for method, own in methods.items():
    basis = str(directory / f'basis-{method}')
    fit = ['fit-basis', *task, '--out', basis, '--method', method, *own]
    done = run_command([*fit, '--sample_size', str(sample)])
    yield _row(f'fit, {method}', sample, done)
    for ahead in ('0',) if small else ('0', 'as chosen'):
      index = str(directory / f'index-{method}-{ahead.split()[0]}')
      where = ['--basis', basis, '--index', index]
      more = ['--num_preprocess_workers', ahead] if ahead == '0' else []
      done = run_command(['project', *task, *where, *more])
      count = done['result']['num_examples']
      yield _row(f'project, {method}, processes {ahead}', count, done)


def _row(step: str, count: int, done: dict[str, Any]) -> list[str]:
  share = done['result'].get('device_share')
  return [
    step,
    f'{count / done["seconds"]:,.1f}',
    f'{done["seconds"]:,.1f}',
    '' if share is None else f'{share:.0%}',
    f'{done["peak_bytes"] / 2**30:.2f}',
  ]


if __name__ == '__main__':
  main()
