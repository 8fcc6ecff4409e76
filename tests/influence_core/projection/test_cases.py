"""The factored projection of every awkward model equals plain gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import parameter_selection
from influence_core.projection import (
  plan as projection_plan,
  projector as gradient_projection,
  traced_loss,
)
from influence_core.projection.options import ProjectionOptions
from tests.benchmarks import projection_models
from tests.kit import marks, plain_projection, projection_cases

CASES = {case.name: case for case in projection_cases.hard_cases()}

# Of the largest entry. Both ways round the model's own bfloat16 arithmetic
# (2**-8), but only the plain way rounds its gradients to it too.
BFLOAT16_TOLERANCE = 2**-8
FLOAT32_TOLERANCE = 1e-5

# Cases with a matrix whose gradient is formed as a whole, as it must be.
DENSE = {
  # Used in a product with itself, merged, normalised, sliced,
  # turned around or concatenated: its sites are not those of the parameter.
  'shared_weight_three_ways': {'w'},
  'lora_merged': {'a', 'b', 'w'},
  'weight_norm': {'params/layer_instance/kernel'},
  'loop_over_stacked_parameter': {'w'},
  'convolution_transposed_flipped_kernel': {'params/kernel'},
  # Conditionals and custom derivatives are differentiated by JAX alone.
  'cond_under_vmap': {'first', 'second'},
  'cond_in_map': {'first', 'second'},
  'cond_on_parameter': {'first', 'second'},
  'custom_jvp_on_weight': {'w'},
  'custom_vjp_with_parameter': {'w'},
  'stop_gradient_on_one_use': {'w'},
}

# What takes longest to compile, but for one of each kind.
SLOW = {
  'batch_norm_frozen',
  'bfloat16_compute',
  'bfloat16_params',
  'bfloat16_params_float32_compute',
  'convolution_1d_causal',
  'convolution_3d',
  'convolution_chain_with_norms',
  'convolution_circular',
  'convolution_input_dilated',
  'convolution_uneven_padding',
  'convolution_unshared',
  'convolutional',
  'dense_applied_twice_with_l2',
  'dropout_deterministic',
  'encoder_decoder',
  'fori_loop',
  'group_norm',
  'gru',
  'language_model',
  'language_model_remat',
  'language_model_scanned',
  'language_model_scanned_remat',
  'language_model_scanned_with_l2',
  'loop_over_stacked_parameter',
  'lstm',
  'lstm_bidirectional',
  'matrix_inside_and_outside_scan',
  'nested_scans',
  'nnx_attention',
  'parameter_as_initial_carry',
  'rematerialised_dense',
  'rms_norm',
  'scan_over_parameters_and_data',
  'scanned_layers',
  'scanned_layers_stacked_on_axis_1',
  'soft_mixture_of_experts',
  'top_one_mixture_of_experts',
  'vision_transformer',
}


def random_basis(params, dim=3):
  generator = np.random.default_rng(0)
  return {
    path: generator.standard_normal((dim, *leaf.shape)).astype(np.float32)
    for path, leaf in parameter_selection.select_parameters(params).items()
  }


def make_projector(case, basis, **options):
  return gradient_projection.GradientProjector(
    case.per_example_loss,
    case.params,
    eigenvectors=basis,
    features=case.features,
    options=ProjectionOptions(**options),
    num_examples=5,
  )


def relative_errors(found, expected):
  return [
    float(np.max(np.abs(value - wanted)) / np.max(np.abs(wanted)))
    for value, wanted in zip(found, expected, strict=True)
  ]


@pytest.mark.parametrize('name', marks.slow_where(CASES, SLOW))
def test_equals_plain_gradients(name):
  case = CASES[name]
  basis = random_basis(case.params)
  found = make_projector(case, basis).project(case.features)
  expected = jax.jit(
    lambda features: plain_projection.project_gradients(
      case.per_example_loss, case.params, basis, features
    )
  )(case.features)
  tolerance = BFLOAT16_TOLERANCE if 'bfloat16' in name else FLOAT32_TOLERANCE
  assert max(relative_errors(found, expected)) < tolerance


@pytest.mark.parametrize(
  'name', [name for name in CASES if not name.endswith('_l2')]
)
def test_matrices_are_factored(name):
  case = CASES[name]
  traced = traced_loss.trace_loss(
    case.per_example_loss,
    case.params,
    tuple(parameter_selection.select_parameters(case.params)),
    case.features,
  )
  dense = {
    weight.path
    for weight in traced.plan.all_weights()
    if not isinstance(weight, projection_plan.FactoredWeight)
    and len(weight.shape) >= 2
    and not weight.path.endswith(('bias', 'bias/value', 'positions'))
  }
  if name == 'lstm_bidirectional':  # Its kernels are concatenated.
    assert len(dense) == 16
  else:
    assert dense == DENSE.get(name, set())


@pytest.mark.slow
@pytest.mark.parametrize(
  'name',
  [
    'mlp',
    'convolution_grouped',
    'embedding_of_repeated_ids',
    'language_model_scanned',
    'left_weight_with_batch_dimensions',
    'gru',
  ],
)
def test_small_blocks_give_the_same(name):
  case = CASES[name]
  basis = random_basis(case.params, dim=5)
  whole = make_projector(case, basis)
  # A sixteenth of the budget is a block: a few rows, positions or vectors.
  budget = 2 * (whole.peak_bytes + 16)
  small = make_projector(case, basis, memory_budget_bytes=budget)
  assert small.memory.block_bytes < whole.memory.block_bytes
  found = small.project(case.features)
  expected = whole.project(case.features)
  assert max(relative_errors(found, expected)) < FLOAT32_TOLERANCE


@pytest.mark.slow
def test_memory_does_not_grow_with_depth():
  """A scanned layer adds its input to what is kept, and nothing else."""

  def temporary_bytes(num_layers):
    case = projection_models.language_model(
      scanned=True,
      num_examples=4,
      num_layers=num_layers,
      num_tokens=8,
      width=32,
      num_heads=2,
      vocabulary_size=16,
    )
    projector = make_projector(case, random_basis(case.params))
    return projector.program.micro_batch, projector.program.temporary_bytes

  (batch, shallow), (_, deep) = temporary_bytes(2), temporary_bytes(10)
  input_bytes = 4 * batch * 8 * 32
  # Two copies at most: JAX stacks what enters, XLA may copy the stack.
  assert deep - shallow <= 8 * 2 * input_bytes
  # What a layer's gradients alone would take.
  assert input_bytes < 4 * batch * 12 * 32 * 32 / 10


@pytest.mark.slow
def test_tokens_add_up_to_the_example():
  sizes = {
    'num_examples': 3,
    'num_tokens': 6,
    'vocabulary_size': 11,
    'width': 8,
    'num_layers': 2,
    'num_heads': 2,
  }
  for scanned in (False, True):
    tokens = projection_models.language_model_token_losses(
      scanned=scanned, **sizes
    )
    whole = projection_models.language_model(scanned=scanned, **sizes)
    basis = random_basis(whole.params)
    by_token = make_projector(tokens, basis).project(tokens.features)
    expected = make_projector(whole, basis).project(whole.features)
    assert by_token.projections.shape == (3, 6, 3)
    assert by_token.squared_gradient_norms.shape == (3, 6)
    errors = relative_errors(
      (by_token.projections.sum(1), by_token.losses.sum(1)),
      (expected.projections, expected.losses),
    )
    assert max(errors) < FLOAT32_TOLERANCE

    def third_token(params, features, loss=tokens.per_example_loss):
      return loss(params, features)[:, 2]

    plain = plain_projection.project_gradients(
      third_token,
      whole.params,
      basis,
      jax.tree.map(jnp.asarray, tokens.features),
    )
    errors = relative_errors(
      (by_token.projections[:, 2], by_token.squared_gradient_norms[:, 2]),
      plain[:2],
    )
    assert max(errors) < FLOAT32_TOLERANCE
