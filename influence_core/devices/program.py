"""Compiled device programs, and how large a batch of them may be."""

from collections.abc import Callable
import dataclasses
import math
import threading
from typing import Any, Generic, TypeVar

import jax

from influence_core import errors, types

_USEFUL_BYTES = 1 << 30
# Calls with less temporaries are over before the next one is asked for: a call
# from Python takes as long as some hundred of such small examples.
_SMALL_BYTES = 8 << 20
_LARGEST_GROWTH = 8
MadeT = TypeVar('MadeT')


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled projection.

  Attributes:
    micro_batch: examples of a call on each device.
    compiled: the executable.
    temporary_bytes: of a call on each device, with its results.
  """

  micro_batch: int
  compiled: Any
  temporary_bytes: int


class ByShape(Generic[MadeT]):
  """Something for each shape of features, made when the shape first comes.

  Threads wait for one another.
  """

  def __init__(self, make: Callable[[types.Features], MadeT]):
    """Makes nothing yet.

    Args:
      make: such as the program of [any, ...] features, for their shapes.
    """
    self._make = make
    self._made: dict[tuple[tuple[int, ...], ...], MadeT] = {}
    self._lock = threading.Lock()

  def __call__(self, features: types.Features) -> MadeT:
    """That of [any, ...] features; raises whatever making it does."""
    shapes = example_shapes(features)
    with self._lock:
      if shapes not in self._made:
        self._made[shapes] = self._make(features)
      return self._made[shapes]


def example_shapes(features: types.Features) -> tuple[tuple[int, ...], ...]:
  """Shapes of the arrays of one example."""
  return tuple(tuple(leaf.shape[1:]) for leaf in jax.tree.leaves(features))


def choose_program(
  compile_program: Callable[[int], Program],
  workspace_bytes: int,
  *,
  batch_size: int | None,
  preferred: int,
  num_examples: int | None,
  useful_bytes: int | None = None,
) -> Program:
  """The program for a batch size, or for the largest useful one that fits.

  Args:
    compile_program: the program for a micro-batch.
    workspace_bytes: what its temporaries may take on each device.
    batch_size: examples of a call over all local devices; None for the most
      that is useful and fits.
    preferred: micro-batch beyond which nothing is gained.
    num_examples: most examples of a call, if known.
    useful_bytes: see `largest_program`.

  Raises:
    errors.InputError: The batch does not fit, or not even a single example.
  """
  devices = jax.local_device_count()
  if batch_size is None:
    own = num_examples and -(-num_examples // devices)
    program = largest_program(
      compile_program,
      workspace_bytes,
      preferred=preferred,
      num_examples=own,
      useful_bytes=useful_bytes,
    )
    return _grown(compile_program, program, own, workspace_bytes)
  program = compile_program(batch_size // devices)
  if program.temporary_bytes > workspace_bytes:
    raise errors.InputError(
      f'batch_size {batch_size} needs {program.temporary_bytes:,} bytes of '
      f'temporary memory on each device, {workspace_bytes:,} are left beside '
      'parameters and basis; give a smaller one or none'
    )
  return program


def _grown(
  compile_program: Callable[[int], Program],
  program: Program,
  num_examples: int | None,
  workspace_bytes: int,
) -> Program:
  """A larger program, if calls of this one are so small that each counts."""
  growth = min(_LARGEST_GROWTH, _SMALL_BYTES // max(1, program.temporary_bytes))
  micro_batch = program.micro_batch * max(1, growth)
  if num_examples is not None:
    # Of one size, so that the last call is not mostly padding.
    num_calls = -(-num_examples // micro_batch)
    micro_batch = -(-num_examples // num_calls)
  if micro_batch <= program.micro_batch:
    return program
  larger = compile_program(micro_batch)
  return larger if larger.temporary_bytes <= workspace_bytes else program


def largest_program(
  compile_program: Callable[[int], Program],
  workspace_bytes: int,
  *,
  preferred: int,
  num_examples: int | None,
  useful_bytes: int | None = None,
) -> Program:
  """The program with the largest useful micro-batch that fits.

  Args:
    compile_program: the program for a micro-batch.
    workspace_bytes: what its temporaries may take.
    preferred: micro-batch beyond which nothing is gained.
    num_examples: examples there will ever be for each device, if known.
    useful_bytes: what the examples after the first may add to the temporaries,
      as more would gain little; None for all that may be taken.

  Raises:
    errors.InputError: Not even a single example fits.
  """
  most = preferred
  if num_examples is not None:
    most = max(1, min(most, num_examples))
  program = compile_program(most)
  useful = useful_bytes or workspace_bytes
  if program.temporary_bytes <= min(useful, workspace_bytes):
    return program
  single = compile_program(1) if most > 1 else program
  if single.temporary_bytes > workspace_bytes:
    raise errors.InputError(
      f'one example needs {single.temporary_bytes:,} bytes of temporary '
      f'memory on each device and {workspace_bytes:,} are left beside '
      'what stays there; raise memory_budget, select fewer parameters, '
      'or wrap the layers of the model in jax.checkpoint'
    )
  # Part of the temporaries is there whatever the batch, such as a gradient.
  growth = program.temporary_bytes - single.temporary_bytes
  fitting = min(useful, workspace_bytes - single.temporary_bytes)
  if growth <= fitting:
    return program
  micro_batch = 2 ** int(math.log2(1 + fitting * (most - 1) / growth))
  while micro_batch > 1:
    program = compile_program(micro_batch)
    if program.temporary_bytes <= workspace_bytes:
      return program
    micro_batch //= 2
  return single


def useful_bytes(parameter_bytes: int) -> int:
  """Temporaries beyond which a larger batch gains little.

  With batches of them the parameters are read seldom enough.
  """
  return max(parameter_bytes, _USEFUL_BYTES)


def compile_lowered(lowered: Any, micro_batch: int) -> Program:
  """Compiles a lowered function of a micro-batch."""
  executable = lowered.compile()
  stats = executable.memory_analysis()
  num_bytes = stats.temp_size_in_bytes + stats.output_size_in_bytes
  return Program(micro_batch, executable, num_bytes)


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
