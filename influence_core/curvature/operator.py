"""The curvature of the training loss as an operator on vectors.

What Arnoldi iteration explores. It is built on one fixed sample of the corpus:
a new minibatch at every product would make the operator noisy, and its small
eigenvalues meaningless. The sample is spread over all devices of all processes,
and every device adds up its own examples in a fixed order, so that the operator
is deterministic.

Parameters and sample never change, so what a product computes from them alone
(activations, cotangents) is kept between products as far as memory goes: a
third to a half of the work.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import choices, errors, parameter_selection, types
from influence_core.curvature import products as curvature_products
from influence_core.curvature.linearization import Linearization
from influence_core.devices import (
  memory as device_memory,
  multi_device,
  parameter_layout,
  program as device_program,
)

# More examples at a time gain little, and cost memory.
_PREFERRED_MICROBATCH = 128
# Entries of an initial vector drawn at a time: results must not depend on how
# vectors are cut into slices.
_RANDOM_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class CurvatureOptions:
  """Which matrix, and how its products are computed.

  Attributes:
    curvature: 'hessian', d2 loss / d theta2; 'gauss_newton', J^T H_out J with
      the Jacobian J of the outputs; 'empirical_fisher', the mean of g g^T over
      the gradients of the examples.
    l2_weight: c, where the training loss had a term c/2 * |theta|^2; adds c to
      every eigenvalue.
    microbatch_size: examples differentiated at a time on each device; None for
      the largest useful one that fits.
    memory_budget_bytes: memory to use on each device; None for most of it.
    reserved_bytes: memory on each device that is not used to keep intermediate
      values, if there is so much.
    parameter_placement: 'replicated' on every device, or 'sharded' over the
      devices of all processes, for models that do not fit one.
  """

  curvature: choices.Curvature = 'hessian'
  l2_weight: float = 0.0
  microbatch_size: int | None = None
  memory_budget_bytes: int | None = None
  reserved_bytes: int = 0
  parameter_placement: choices.ParameterPlacement = 'replicated'


class CurvatureOperator:
  """v -> Cv for the mean loss of a sample, on slices of vectors.

  Attributes:
    num_parameters: length of a vector.
    slice_size: entries of a vector on each device; the last ones of the last
      devices may be padding, always zero.
    microbatch_size: examples differentiated at a time on each device.
    mode: 'forward over reverse', or 'reverse over reverse' where the loss has
      no forward derivative.
    num_microbatches: calls of a product on this process.
    num_kept: those whose intermediate values are kept between products.
    kept_bytes: memory on each device that these take.
    resident_bytes: memory on each device for parameters and two vectors.
    temporary_bytes: memory on each device that a product takes besides.
    unused_bytes: what is left of the budget.
  """

  def __init__(
    self,
    per_example_loss: types.PerExampleLoss,
    params: types.Params,
    *,
    sample: types.Features,
    parameter_paths: Sequence[str] = ('.*',),
    split_loss: curvature_products.SplitLoss | None = None,
    options: CurvatureOptions = CurvatureOptions(),
  ):
    """Compiles the product and puts the sample on the devices.

    Args:
      per_example_loss: (params, [batch, ...] features) -> [batch] losses.
      params: pytree of arrays at which the curvature is taken.
      sample: pytree of [num_examples, ...] arrays: this process's part.
      parameter_paths: regular expressions of the parameters to differentiate.
      split_loss: the same loss in two parts; for 'gauss_newton' only.
      options: see there.

    Raises:
      errors.InputError: Gauss-Newton without a split loss, or not enough
        memory for the parameters or a single example.
    """
    selected = parameter_selection.select_parameters(params, parameter_paths)
    leaves = parameter_selection.all_parameters(params)
    self.num_parameters = parameter_selection.num_parameters(selected)
    self.slice_size = -(-self.num_parameters // jax.device_count())
    self._num_examples = _over_processes(multi_device.num_examples(sample))
    self._l2_weight = options.l2_weight

    product_in = functools.partial(
      curvature_products.batch_product,
      *(options.curvature, per_example_loss, split_loss, params),
    )
    # The way of differentiating, then memory: parameters and two vectors are
    # resident, a microbatch must fit what they leave (it decides how many
    # examples), and what a microbatch leaves keeps intermediate values.
    self.mode = curvature_products.possible_mode(
      product_in, selected, leaves, sample
    )
    sharded = options.parameter_placement == 'sharded'
    self._layout = _make_layout(sharded, leaves, selected)
    self.resident_bytes = self._layout.resident_bytes
    budget = options.memory_budget_bytes or device_memory.default_budget_bytes()
    workspace_bytes = self._workspace_bytes(budget)
    product = product_in(self.mode)
    program = self._compile(
      product, sample, options.microbatch_size, workspace_bytes
    )
    self._add_microbatch = program.compiled
    self.microbatch_size = program.micro_batch
    self.temporary_bytes = max(program.temporary_bytes, self._exchanged_bytes)
    self._batches = self._layout.batches(sample, program.micro_batch)
    self.num_microbatches = len(self._batches)
    self.unused_bytes = workspace_bytes - self.temporary_bytes
    self.kept_bytes = 0
    self._kept = []
    if not sharded:  # Else memory is too short for this.
      spared = options.reserved_bytes
      self._kept = self._keep(product, sample, selected, spared)
    self.num_kept = len(self._kept)
    self._finish = multi_device.parallel_map(self._finish_on_device)

  def __call__(self, slices: jax.Array) -> jax.Array:
    """[local devices, slice_size] float32 to the same."""
    vector, product = self._layout.gather(slices)
    leaves = self._layout.leaves
    for kept, batch in zip(self._kept, self._batches, strict=False):
      product = self._add_kept(product, vector, leaves, batch, kept)
    for batch in self._batches[self.num_kept :]:
      product = self._add_microbatch(product, vector, leaves, batch)
    del vector
    return self._finish(self._layout.finish(product), slices)

  def of_microbatch(self, slices: jax.Array, number: int) -> jax.Array:
    """The product with the curvature of one microbatch alone.

    Over random numbers its mean is near that of the whole sample. For one
    process, with replicated parameters.

    Args:
      slices: of the vector.
      number: of the microbatch.
    """
    vector, product = self._layout.gather(slices)
    inputs = (product, vector, self._layout.leaves, self._batches[number])
    if number < self.num_kept:
      product = self._add_kept(*inputs, self._kept[number])
    else:
      product = self._add_microbatch(*inputs)
    del vector
    mean = self._finish(self._layout.finish(product), slices)
    l2_part = self._l2_weight * slices
    share = self._num_examples / self._batches[number].num_valid
    return share * (mean - l2_part) + l2_part

  def slices(self, columns: Callable[[int, int], np.ndarray]) -> jax.Array:
    """Slices of the vector with columns(start, stop) as entries start:stop."""
    devices = jax.local_device_count()
    first = multi_device.first_device() * self.slice_size
    parts = np.zeros((devices, self.slice_size), np.float32)
    for number, part in enumerate(parts):
      start = min(first + number * self.slice_size, self.num_parameters)
      stop = min(start + self.slice_size, self.num_parameters)
      part[: stop - start] = columns(start, stop)
    return multi_device.place(parts)

  def random_vector(self, seed: Sequence[int], *, signs: bool = False):
    """Slices of a random vector, the same for any number of devices.

    Args:
      seed: of the generator.
      signs: whether entries are -1 and 1 (Rademacher); else they are normal.
    """

    def columns(start, stop):
      parts = [np.zeros(0, np.float32)]
      for number in range(start // _RANDOM_BLOCK, -(-stop // _RANDOM_BLOCK)):
        generator = np.random.default_rng([*seed, number])
        block = generator.standard_normal(_RANDOM_BLOCK, np.float32)
        begin = number * _RANDOM_BLOCK
        parts.append(block[max(start - begin, 0) : max(stop - begin, 0)])
      entries = np.concatenate(parts)
      return np.where(entries < 0, -1, 1) if signs else entries

    return self.slices(columns)

  @property
  def _exchanged_bytes(self) -> int:
    """A whole vector, on each device before and after a product."""
    return 4 * self.num_parameters

  def _workspace_bytes(self, budget: int) -> int:
    """What parameters and vectors leave of the budget."""
    left = budget - self.resident_bytes
    if left < self._exchanged_bytes:
      raise errors.InputError(
        f'the memory budget is {budget:,} bytes on each device, but parameters '
        f'and vectors take {self.resident_bytes + self._exchanged_bytes:,}; '
        'raise memory_budget, select fewer parameters, or shard parameters '
        'over several devices'
      )
    return left

  def _compile(
    self, product, sample, microbatch_size: int | None, workspace_bytes: int
  ) -> device_program.Program:
    """The program for one microbatch, as large as useful and fitting."""

    def add_microbatch(total, vector, leaves, batch):
      return jax.tree.map(jnp.add, total, product(vector, leaves, batch))

    mapped = self._layout.map(add_microbatch, donate_argnums=(0,))

    def compile_program(microbatch: int) -> device_program.Program:
      shapes = self._layout.argument_shapes(sample, microbatch)
      return device_program.compile_lowered(
        mapped.lower(shapes[0], *shapes), microbatch
      )

    if microbatch_size is not None:
      return compile_program(microbatch_size)
    # Processes may compute together, so that all must choose the same.
    largest = multi_device.largest_over_processes(
      multi_device.num_examples(sample)
    )
    return device_program.largest_program(
      compile_program,
      workspace_bytes,
      preferred=_PREFERRED_MICROBATCH,
      num_examples=-(-largest // jax.local_device_count()),
    )

  def _keep(self, product, sample, selected, reserved_bytes: int) -> list[Any]:
    """Intermediate values of as many microbatches as there is room for."""
    parts = Linearization(product, like=selected)
    vector, *inputs = self._layout.argument_shapes(sample, self.microbatch_size)
    prepare = self._layout.map(parts.prepare).lower(*inputs)
    kept = prepare.out_info
    kept_bytes = device_program.num_bytes(kept) // jax.local_device_count()
    room = self.unused_bytes
    if reserved_bytes <= room:
      room -= reserved_bytes
    count = min(room // max(kept_bytes, 1), self.num_microbatches)
    if count < 1:
      return []

    def add_kept(total, vector, leaves, batch, kept):
      part = parts.apply(kept, vector, leaves, batch)
      return jax.tree.map(jnp.add, total, part)

    mapped = self._layout.map(add_kept, donate_argnums=(0,))
    self._add_kept = mapped.lower(vector, vector, *inputs, kept).compile()
    self.kept_bytes = count * kept_bytes
    self.unused_bytes -= self.kept_bytes
    compute = prepare.compile()
    return [
      compute(self._layout.leaves, batch) for batch in self._batches[:count]
    ]

  def _finish_on_device(self, total, part):
    """The mean over all examples."""
    return total / self._num_examples + self._l2_weight * part


def _over_processes(number: int) -> int:
  return int(multi_device.sum_over_processes(np.array(float(number))))


def _make_layout(sharded: bool, leaves, selected) -> parameter_layout.Layout:
  if sharded:
    return parameter_layout.Sharded(leaves, selected)
  return parameter_layout.Replicated(leaves, selected)
