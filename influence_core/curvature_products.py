"""Products of a curvature matrix of the training loss with a vector.

The operator that Arnoldi iteration explores. It is built on one fixed sample
of the corpus: a new minibatch at every product would make the operator noisy,
and its small eigenvalues meaningless. The sample is spread over all devices of
all processes, and every device adds up its own examples in a fixed order, so
that the operator is deterministic.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, Literal

import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np

from influence_core import (
  device_memory,
  device_program,
  errors,
  multi_device,
  parameter_selection,
  types,
)

Curvature = Literal['hessian', 'gauss_newton', 'empirical_fisher']

# More examples at a time gain little, and cost memory.
_PREFERRED_MICROBATCH = 128
# Entries of an initial vector drawn at a time: results must not depend on how
# vectors are cut into slices.
_RANDOM_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class SplitLoss:
  """A loss as a function of model outputs, which Gauss-Newton needs.

  Attributes:
    outputs: (params, [batch, ...] features) -> [batch, ...] outputs.
    output_loss: (outputs, features) -> [batch] losses, convex in the outputs.
  """

  outputs: Callable[[types.Params, types.Features], Any]
  output_loss: Callable[[Any, types.Features], jax.Array]


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
  """

  curvature: Curvature = 'hessian'
  l2_weight: float = 0.0
  microbatch_size: int | None = None
  memory_budget_bytes: int | None = None


class CurvatureOperator:
  """v -> Cv for the mean loss of a sample, on slices of vectors.

  Attributes:
    num_parameters: length of a vector.
    slice_size: entries of a vector on each device; the last ones of the last
      devices may be padding, always zero.
    microbatch_size: examples differentiated at a time on each device.
    mode: 'forward over reverse', or 'reverse over reverse' where the loss has
      no forward derivative.
    resident_bytes: memory on each device between products.
    temporary_bytes: memory on each device that a product takes besides.
  """

  def __init__(
    self,
    per_example_loss: types.PerExampleLoss,
    params: types.Params,
    *,
    sample: types.Features,
    parameter_paths: Sequence[str] = ('.*',),
    split_loss: SplitLoss | None = None,
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
        memory for a single example.
    """
    selected = parameter_selection.select_parameters(params, parameter_paths)
    self._shapes = {path: leaf.shape for path, leaf in selected.items()}
    self.num_parameters = parameter_selection.num_parameters(selected)
    self.slice_size = -(-self.num_parameters // jax.device_count())
    self._num_examples = int(
      multi_device.sum_over_processes(
        np.array(float(multi_device.num_examples(sample)))
      )
    )
    self._l2_weight = options.l2_weight
    product = _product_function(options.curvature, per_example_loss, split_loss)
    self._leaves = multi_device.replicate(
      parameter_selection.all_parameters(params)
    )
    vector_bytes = 4 * self.num_parameters
    self.resident_bytes = (
      sum(leaf.nbytes for leaf in selected.values()) + 2 * vector_bytes
    )
    self.mode = _mode(product, params, selected, sample)
    program = self._compile(product, params, sample, options)
    self.microbatch_size = program.micro_batch
    self.temporary_bytes = program.temporary_bytes
    self._add_microbatch = program.compiled
    self._microbatches = [
      multi_device.place(batch)
      for batch in multi_device.padded_batches(
        sample, program.micro_batch * jax.local_device_count()
      )
    ]
    self._gather = multi_device.parallel_map(self._gather_on_device)
    self._finish = multi_device.parallel_map(self._finish_on_device)

  def __call__(self, slices: jax.Array) -> jax.Array:
    """[local devices, slice_size] float32 to the same."""
    vector, product = multi_device.as_local(self._gather(slices))
    for batch in self._microbatches:
      product = self._add_microbatch(product, self._leaves, vector, batch)
    del vector
    return self._finish(product, slices)

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

  def _compile(self, product, params, sample, options):
    """The program for one microbatch, as large as useful and fitting."""
    devices = jax.local_device_count()
    add_microbatch = multi_device.local_map(
      _accumulation(product, params, self.mode), donate_argnums=(0,)
    )
    vector = {
      path: jax.ShapeDtypeStruct((devices, *shape), np.float32)
      for path, shape in self._shapes.items()
    }

    def compile_program(microbatch: int) -> device_program.Program:
      batch = multi_device.DeviceBatch(
        device_program.with_lead(sample, devices, microbatch),
        jax.ShapeDtypeStruct((devices, microbatch), np.float32),
      )
      leaves = device_program.with_lead(self._leaves, devices)
      lowered = add_microbatch.lower(vector, leaves, vector, batch)
      return device_program.compiled(lowered, microbatch)

    budget = options.memory_budget_bytes
    if budget is None:
      budget = device_memory.default_budget_bytes()
    if options.microbatch_size is not None:
      return compile_program(options.microbatch_size)
    return device_program.largest_program(
      compile_program,
      budget - self.resident_bytes,
      preferred=_PREFERRED_MICROBATCH,
      num_examples=-(-multi_device.num_examples(sample) // devices),
    )

  def _gather_on_device(self, part):
    """The whole vector by path, and zeros to add its product to."""
    flat = jax.lax.all_gather(part, multi_device.DEVICE_AXIS, tiled=True)
    vector, start = {}, 0
    for path, shape in self._shapes.items():
      size = int(np.prod(shape))
      vector[path] = flat[start : start + size].reshape(shape)
      start += size
    return vector, jax.tree.map(jnp.zeros_like, vector)

  def _finish_on_device(self, product, part):
    """Mean over all examples, cut into slices again."""
    flat = flatten_util.ravel_pytree(product)[0]
    missing = self.slice_size * jax.device_count() - len(flat)
    total = jax.lax.psum_scatter(
      jnp.pad(flat, (0, missing)), multi_device.DEVICE_AXIS, tiled=True
    )
    return total / self._num_examples + self._l2_weight * part


def _accumulation(product, params, mode: str):
  """(sum, leaves, vector, batch) -> sum and the product for one microbatch."""

  def add_microbatch(total, leaves, vector, batch):
    def with_selected(selected):
      return parameter_selection.replace_parameters(
        params, {**leaves, **selected}
      )

    selected = {path: leaves[path] for path in vector}
    tangent = {
      path: entries.astype(selected[path].dtype)
      for path, entries in vector.items()
    }
    part = product(with_selected, selected, tangent, batch, mode)
    return jax.tree.map(
      lambda sum_, term: sum_ + term.astype(jnp.float32), total, part
    )

  return add_microbatch


def _product_function(
  curvature: Curvature,
  per_example_loss: types.PerExampleLoss,
  split_loss: SplitLoss | None,
):
  """(with_selected, selected, tangent, batch, mode) -> sum of products."""

  def hessian(with_selected, selected, tangent, batch, mode):
    def loss_sum(selected):
      losses = per_example_loss(with_selected(selected), batch.features)
      return jnp.sum(losses.astype(jnp.float32) * batch.mask)

    return _push_forward(jax.grad(loss_sum), selected, tangent, mode)

  def gauss_newton(with_selected, selected, tangent, batch, mode):
    def outputs_of(selected):
      return split_loss.outputs(with_selected(selected), batch.features)

    def loss_sum(outputs):
      losses = split_loss.output_loss(outputs, batch.features)
      return jnp.sum(losses.astype(jnp.float32) * batch.mask)

    outputs, pull_back = jax.vjp(outputs_of, selected)
    change = _push_forward(outputs_of, selected, tangent, mode)
    curved = jax.jvp(jax.grad(loss_sum), (outputs,), (change,))[1]
    return pull_back(curved)[0]

  def empirical_fisher(with_selected, selected, tangent, batch, mode):
    def losses_of(selected):
      losses = per_example_loss(with_selected(selected), batch.features)
      return losses.astype(jnp.float32) * batch.mask

    _, pull_back = jax.vjp(losses_of, selected)
    return pull_back(_push_forward(losses_of, selected, tangent, mode))[0]

  if curvature == 'gauss_newton' and split_loss is None:
    raise errors.InputError(
      "curvature 'gauss_newton' needs the loss in two parts; give the task "
      'a split_loss, or use another curvature'
    )
  return {
    'hessian': hessian,
    'gauss_newton': gauss_newton,
    'empirical_fisher': empirical_fisher,
  }[curvature]


def _push_forward(function, primals, tangent, mode: str):
  """The derivative of `function` along `tangent`."""
  if mode == 'forward over reverse':
    return jax.jvp(function, (primals,), (tangent,))[1]
  # The pull-back is linear; pulling back through it pushes forward.
  outputs, pull_back = jax.vjp(function, primals)
  zero = jax.tree.map(jnp.zeros_like, outputs)
  return jax.vjp(lambda cotangent: pull_back(cotangent)[0], zero)[1](tangent)[0]


def _mode(product, params, selected, sample) -> str:
  """Forward over reverse where it is possible."""
  mode = 'forward over reverse'
  batch = multi_device.DeviceBatch(
    jax.tree.map(lambda leaf: leaf[:1], sample), np.ones(1, np.float32)
  )
  vector = {
    path: jax.ShapeDtypeStruct(leaf.shape, np.float32)
    for path, leaf in selected.items()
  }
  leaves = parameter_selection.all_parameters(params)
  # Only lowering finds out whether every operation has a forward derivative.
  function = jax.jit(_accumulation(product, params, mode))
  try:
    function.lower(vector, leaves, vector, batch)
  except TypeError as error:
    if 'custom_vjp' not in str(error):
      raise
    mode = 'reverse over reverse'
  return mode
