"""The page of `influence reproduce`: tables of figures, in Markdown."""

from collections.abc import Mapping, Sequence
from importlib import metadata
import os
import platform
import shlex
from typing import Any

from launch.reproduce import recipes

_PACKAGES = ('jax', 'flax', 'apache-beam', 'numpy')


def render(
  name: str,
  recipe: recipes.Recipe,
  steps: Sequence[recipes.Step],
  found: recipes.Results,
  out: str,
) -> str:
  """A page with tables, commands, hardware and versions.

  Args:
    name: of the recipe.
    recipe: what was run.
    steps: of it.
    found: argv, seconds and result of each step by name.
    out: directory, which commands in the page do not name.
  """
  seconds = sum(step['seconds'] for step in found.values())
  lines = [
    f'## {name}',
    '',
    f'`influence reproduce {name}`: {seconds / 60:.0f} minutes, {_machine()}.',
    '',
    *recipe.tables(found),
    '<details><summary>Commands</summary>',
    '',
    '```sh',
    *(
      f'influence {_typed(step, out)}  # {found[step.name]["seconds"]:.0f} s'
      for step in steps
    ),
    '```',
    '',
    '</details>',
    '',
  ]
  return '\n'.join(lines)


def _typed(step: recipes.Step, out: str) -> str:
  """The command with OUT for the directory, which is another for everyone."""
  return shlex.join(x.replace(out, 'OUT') for x in step.argv)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of a Markdown table, and an empty one."""
  lines = [header, ['---'] * len(header), *rows]
  return [*(f'| {" | ".join(cells)} |' for cells in lines), '']


def row_of(
  rows: Sequence[Mapping[str, Any]], **wanted: str
) -> Mapping[str, Any]:
  """The only row with these values in these columns."""
  [row] = [x for x in rows if wanted.items() <= x.items()]
  return row


def with_interval(row: Mapping[str, Any], key: str, prefix: str = '') -> str:
  """A figure of a result, and its interval.

  Args:
    row: has the figure, and 'low' and 'high'.
    key: of the figure.
    prefix: of the names of the other two.
  """
  low, high = row[f'{prefix}low'], row[f'{prefix}high']
  return f'{row[key]:.3f} [{low:.3f}, {high:.3f}]'


def with_intervals(row: Mapping[str, Any], figures: Sequence[str]) -> list[str]:
  """Figures of a result that names the ends of each FIGURE_low, FIGURE_high."""
  return [with_interval(row, figure, f'{figure}_') for figure in figures]


def _machine() -> str:
  versions = ', '.join(f'{x} {metadata.version(x)}' for x in _PACKAGES)
  kept = 'JAX_COMPILATION_CACHE_DIR' in os.environ
  return (
    f'{os.cpu_count()} cores ({platform.machine()}), Python '
    f'{platform.python_version()}, {versions}'
    + (', programs compiled once for all steps' if kept else '')
  )
