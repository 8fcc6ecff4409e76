"""Compiled device programs, and how large a batch of them may be."""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import jax

from influence_core import errors


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled projection.

  Attributes:
    micro_batch: examples of a call on each device.
    compiled: the executable.
    temporary_bytes: of a call on each device.
  """

  micro_batch: int
  compiled: Any
  temporary_bytes: int


def largest_program(
  compile_program: Callable[[int], Program],
  workspace_bytes: int,
  *,
  preferred: int,
  num_examples: int | None,
) -> Program:
  """The program with the largest useful micro-batch that fits.

  Args:
    compile_program: the program for a micro-batch.
    workspace_bytes: what its temporaries may take.
    preferred: micro-batch beyond which nothing is gained.
    num_examples: examples there will ever be for each device, if known.

  Raises:
    errors.InputError: Not even a single example fits.
  """
  micro_batch = preferred
  if num_examples is not None:
    micro_batch = max(1, min(micro_batch, num_examples))
  program = compile_program(micro_batch)
  while program.temporary_bytes > workspace_bytes:
    if micro_batch == 1:
      raise errors.InputError(
        f'one example needs {program.temporary_bytes:,} bytes of temporary '
        f'memory on each device and {workspace_bytes:,} are left beside '
        'what stays there; raise memory_budget, select fewer parameters, '
        'or wrap the layers of the model in jax.checkpoint'
      )
    # Temporaries grow with the batch, apart from a constant part.
    fitting = micro_batch * workspace_bytes / program.temporary_bytes
    fitting = 2 ** math.floor(math.log2(max(fitting, 1)))
    micro_batch = min(fitting, micro_batch // 2)
    program = compile_program(micro_batch)
  return program


def compile_lowered(lowered: Any, micro_batch: int) -> Program:
  """Compiles a lowered function of a micro-batch."""
  executable = lowered.compile()
  stats = executable.memory_analysis()
  return Program(micro_batch, executable, stats.temp_size_in_bytes)


def num_bytes(shapes: Any) -> int:
  """Size of all arrays of a tree of shapes."""
  return sum(
    math.prod(leaf.shape) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(shapes)
  )


def with_lead(tree: Any, *lead: int) -> Any:
  """Shapes of a tree with its first axis exchanged for `lead`."""
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct((*lead, *leaf.shape[1:]), leaf.dtype),
    tree,
  )
