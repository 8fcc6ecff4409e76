"""Kronecker subspaces against explicit matrices of small networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from influence_core import parameter_selection
from influence_core.curvature import products as curvature_products
from influence_core.projection.options import ProjectionOptions
from influence_core.subspaces import (
  factored_gradients,
  factored_sample,
  kronecker,
  layers as layers_lib,
  output_roots,
  projector as subspace_projector,
)

NUM_EXAMPLES = 40


class Network(nn.Module):
  """A convolution, a norm, and dense layers applied in a scan."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(3, (2, 2), strides=2)(x)).reshape(len(x), -1)
    x = nn.LayerNorm()(x)
    block = nn.scan(
      Block, variable_axes={'params': 0}, split_rngs={'params': True}, length=2
    )
    x, _ = block()(nn.Dense(5)(x), None)
    return nn.Dense(4)(x)


class SmallNetwork(nn.Module):
  """Two layers in a scan, and what they lead to."""

  @nn.compact
  def __call__(self, x):
    block = nn.scan(
      Block, variable_axes={'params': 0}, split_rngs={'params': True}, length=2
    )
    x, _ = block()(x.reshape(len(x), -1)[:, :5], None)
    return nn.Dense(3)(x)


class Block(nn.Module):
  @nn.compact
  def __call__(self, x, _):
    return x + jnp.tanh(nn.Dense(5)(x)), None


@pytest.fixture(scope='module', name='case')
def fixture_case():
  return case_of(Network())


def case_of(model, x=None):
  generator = np.random.default_rng(0)
  if x is None:
    x = generator.normal(size=(NUM_EXAMPLES, 4, 4, 2)).astype(np.float32)
  params = jax.jit(model.init)(jax.random.key(0), x[:1])
  features = {
    'x': x,
    'y': generator.integers(0, 3, NUM_EXAMPLES),
  }

  def output_loss(outputs, features):
    return optax.softmax_cross_entropy_with_integer_labels(
      outputs, features['y']
    )

  split = curvature_products.SplitLoss(
    lambda params, features: model.apply(params, features['x']), output_loss
  )
  return params, features, split


def gauss_newton_gradients(case):
  """[num_examples, num_outputs, *shape] by path: exact roots."""
  params, features, split = case

  def roots(example):
    one = jax.tree.map(lambda leaf: leaf[None], example)
    outputs = split.outputs(params, one)
    hessian = jax.hessian(lambda o: split.output_loss(o[None], one)[0])(
      outputs[0]
    )
    values, vectors = jnp.linalg.eigh(hessian)
    root = (vectors * jnp.sqrt(jnp.maximum(values, 0))).T
    jacobian = jax.jacrev(lambda p: split.outputs(p, one)[0])(params)
    return jax.tree.map(
      lambda leaf: jnp.tensordot(root, leaf, axes=(1, 0)), jacobian
    )

  return parameter_selection.all_parameters(jax.jit(jax.vmap(roots))(features))


def plain_gradients(case):
  params, features, split = case

  def loss(params, example):
    one = jax.tree.map(lambda leaf: leaf[None], example)
    return split.per_example_loss(params, one)[0]

  found = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, features)
  return parameter_selection.all_parameters(found)


def root_sample(case, num_draws):
  """A sample of the roots of the curvature, and a few of their features."""
  params, features, split = case
  selected = parameter_selection.select_parameters(params)
  roots = output_roots.OutputRoots.of(split, params, features, num_draws)

  def draw(examples, place):
    return roots.with_draws(examples, [0, *place])

  drawn = draw(features, ())
  gradients = factored_gradients.FactoredGradients(
    roots.pseudo_loss, params, selected=selected, features=drawn
  )
  leaves = parameter_selection.all_parameters(params)
  few = jax.tree.map(lambda leaf: leaf[:8], drawn)
  return (
    factored_sample.FactoredSample(gradients, leaves, [[features]], draw),
    few,
  )


def fitted(
  case,
  coordinates,
  num_draws=None,
  *,
  draws_for_directions=None,
  has_hessian=False,
  tables='left_out',
  **options,
):
  params, features, split = case
  selected = parameter_selection.select_parameters(params)
  leaves = parameter_selection.all_parameters(params)
  sample, few = root_sample(case, num_draws)
  layers = layers_lib.find(sample.gradients, leaves, few, tables=tables)
  directions_of = None
  if draws_for_directions:
    directions_of, _ = root_sample(case, draws_for_directions)
  losses = factored_gradients.FactoredGradients(
    split.per_example_loss, params, selected=selected, features=features
  )
  plain = factored_sample.FactoredSample(losses, leaves, [[features]])
  bases = kronecker.fit(
    sample,
    layers,
    coordinates,
    directions_of=directions_of,
    hessian_of=plain if has_hessian else None,
    **options,
  )
  return layers, bases.stacks, bases.left_out


def project(case, layers, bases, **options):
  params, features, split = case
  projector = subspace_projector.SubspaceProjector(
    split.per_example_loss,
    params,
    stacks=layers.stacks,
    directions={path: one.directions for path, one in bases.items()},
    selected=parameter_selection.select_parameters(params),
    features=features,
    options=ProjectionOptions(**options),
  )
  return projector.project(features)


def blocks(case):
  """(path of the weight, of its bias, how many layers) that there are."""
  del case
  return {
    'params/Conv_0/kernel': ('params/Conv_0/bias', 1),
    'params/Dense_0/kernel': ('params/Dense_0/bias', 1),
    'params/Dense_1/kernel': ('params/Dense_1/bias', 1),
    'params/ScanBlock_0/Dense_0/kernel': (
      'params/ScanBlock_0/Dense_0/bias',
      2,
    ),
    'params/LayerNorm_0/bias': (None, 1),
    'params/LayerNorm_0/scale': (None, 1),
  }


def flat_of(gradients, path, bias, layer, lead):
  """[*lead, entries] of one layer, with its bias."""
  parts = [gradients[path]] + ([gradients[bias]] if bias else [])
  flat = []
  for part in parts:
    part = np.asarray(part, np.float64)
    if 'Scan' in path:
      part = part[(slice(None),) * lead + (layer,)]
    flat.append(part.reshape(*part.shape[:lead], -1))
  return np.concatenate(flat, axis=-1)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['leading', 'whitened'])
def test_all_coordinates_are_the_inverse_of_the_blocks(case, kind):
  layers, bases, _ = fitted(case, 10**6, kind=kind)
  found = {
    stack.path: (stack.bias, stack.num_layers) for stack in layers.stacks
  }
  assert found == blocks(case)
  projected = project(case, layers, bases)
  roots, plain = gauss_newton_gradients(case), plain_gradients(case)
  expected = np.zeros((NUM_EXAMPLES, NUM_EXAMPLES))
  norms = np.zeros(NUM_EXAMPLES)
  weights = []
  for stack in layers.stacks:
    basis = bases[stack.path]
    for layer in range(stack.num_layers):
      where = stack.path, stack.bias, layer
      own = flat_of(roots, *where, lead=2)
      own = own.reshape(-1, own.shape[-1])
      curvature = own.T @ own / NUM_EXAMPLES
      mean = np.trace(curvature) / len(curvature)
      np.testing.assert_allclose(basis.mean_curvatures[layer], mean, rtol=1e-4)
      np.testing.assert_allclose(basis.captured[layer], 1, rtol=1e-4)
      damped = curvature + 0.1 * mean * np.eye(len(curvature))
      gradients = flat_of(plain, *where, lead=1)
      expected += gradients @ np.linalg.solve(damped, gradients.T)
      norms += np.square(gradients).sum(axis=1)
      weights.append(1 / (basis.eigenvalues[layer] + 0.1 * mean))
  vectors = np.asarray(projected.projections, np.float64)
  influence = vectors * np.concatenate(weights) @ vectors.T
  # float32 gradients and moments.
  np.testing.assert_allclose(
    influence, expected, atol=1e-5 * np.abs(expected).max()
  )
  np.testing.assert_allclose(projected.squared_gradient_norms, norms, rtol=1e-4)


class Plain(nn.Module):
  """Two layers without biases."""

  @nn.compact
  def __call__(self, x):
    x = jnp.tanh(nn.Dense(4, use_bias=False)(x.reshape(len(x), -1)[:, :6]))
    return nn.Dense(3, use_bias=False)(x)


@pytest.mark.slow
def test_the_diagonal_alone_weights_each_coordinate_by_its_moment():
  """As EK-FAC does in its directions."""
  case = case_of(Plain())
  layers, bases, _ = fitted(case, 10**6, shrinkage=1.0)
  vectors = np.asarray(project(case, layers, bases).projections, np.float64)
  weights = [
    1 / (bases[stack.path].eigenvalues[0] + 0.1 * mean)
    for stack in layers.stacks
    for mean in bases[stack.path].mean_curvatures
  ]
  roots, plain = gauss_newton_gradients(case), plain_gradients(case)
  expected = np.zeros((NUM_EXAMPLES, NUM_EXAMPLES))
  for stack in layers.stacks:
    own = bases[stack.path].directions

    def inside(gradients, own=own):
      turned = np.einsum(
        '...rc,rk,cl->...kl', gradients, own.rows[0], own.columns[0]
      )
      return turned.reshape(*gradients.shape[:-2], -1)

    moments = np.square(inside(roots[stack.path])).sum(axis=1).mean(axis=0)
    found = inside(plain[stack.path]).astype(np.float64)
    expected += found / (moments + 0.1 * moments.mean()) @ found.T
  np.testing.assert_allclose(  # float32 gradients and moments.
    vectors * np.concatenate(weights) @ vectors.T,
    expected,
    atol=1e-5 * np.abs(expected).max(),
  )


@pytest.mark.parametrize('shrinkage', [0.25, 1.0])
def test_a_shrunk_curvature_keeps_its_diagonal(shrinkage):
  curvature = np.random.default_rng(0).normal(size=(2, 5, 5))
  shrunk = kronecker._shrunk(curvature, shrinkage)
  for own, whole in zip(shrunk, curvature, strict=True):
    np.testing.assert_array_equal(np.diag(own), np.diag(whole))
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(own[off], (1 - shrinkage) * whole[off])


class Bag(nn.Module):
  """A table of embeddings, and what their sum leads to."""

  @nn.compact
  def __call__(self, ids):
    return nn.Dense(3)(jnp.tanh(nn.Embed(7, 4)(ids)).sum(axis=1))


@pytest.fixture(scope='module', name='bag')
def fixture_bag():
  generator = np.random.default_rng(0)
  ids = generator.integers(0, 7, (NUM_EXAMPLES, 5))
  return case_of(Bag(), ids)


@pytest.mark.slow
def test_a_table_is_left_out_with_its_share(bag):
  layers, _, left_out = fitted(bag, 10**6)
  assert [stack.path for stack in layers.stacks] == ['params/Dense_0/kernel']
  roots = gauss_newton_gradients(bag)
  traces = {
    path: np.square(np.asarray(rows, np.float64)).sum()
    for path, rows in roots.items()
  }
  table = 'params/Embed_0/embedding'
  share = traces[table] / sum(traces.values())
  assert left_out == {table: pytest.approx(share, rel=1e-5)}


@pytest.mark.slow
def test_the_sum_over_the_rows_of_a_table(bag):
  layers, bases, left_out = fitted(bag, 10**6, tables='sum')
  assert not left_out
  stack = next(stack for stack in layers.stacks if stack.is_table)
  basis = bases[stack.path]
  roots = np.asarray(gauss_newton_gradients(bag)[stack.path], np.float64)
  summed = roots.sum(axis=2).reshape(-1, 4) / np.sqrt(7)
  curvature = summed.T @ summed / NUM_EXAMPLES
  mean = np.trace(curvature) / 4
  np.testing.assert_allclose(basis.mean_curvatures, [mean], rtol=1e-5)
  whole = np.square(roots).sum() / NUM_EXAMPLES
  np.testing.assert_allclose(basis.captured, [4 * mean / whole], rtol=1e-5)
  plain = np.asarray(plain_gradients(bag)[stack.path], np.float64)
  gradients = plain.sum(axis=1) / np.sqrt(7)
  damped = curvature + 0.1 * mean * np.eye(4)
  expected = gradients @ np.linalg.solve(damped, gradients.T)
  projected = project(bag, layers, bases).projections.astype(np.float64)
  start = sum(
    bases[other.path].eigenvalues.size
    for other in layers.stacks[: layers.stacks.index(stack)]
  )
  vectors = projected[:, start : start + 4]
  found = vectors / (basis.eigenvalues[0] + 0.1 * mean) @ vectors.T
  # float32 gradients and moments.
  np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())


@pytest.mark.slow
def test_the_hessian_inside_is_that_of_each_block():
  case = case_of(SmallNetwork())
  params, features, split = case
  layers, bases, _ = fitted(case, 10**6, has_hessian=True)
  leaves = parameter_selection.all_parameters(params)

  def mean_loss(leaves):
    replaced = parameter_selection.replace_parameters(params, leaves)
    return split.per_example_loss(replaced, features).mean()

  exact = jax.jit(jax.hessian(mean_loss))(leaves)
  projected = project(case, layers, bases).projections.astype(np.float64)
  plain = plain_gradients(case)
  start = 0
  has_negative = False
  for stack in layers.stacks:
    paths = [stack.path] + ([stack.bias] if stack.bias else [])
    for layer in range(stack.num_layers):
      # Of a scan, one slice of each of its parameters.
      own = (layer,) if 'Scan' in stack.path else ()
      rows = []
      for one in paths:
        row = []
        for other in paths:
          block = np.asarray(exact[one][other], np.float64)
          axes = leaves[one].ndim
          block = block[own][(slice(None),) * (axes - len(own)) + own]
          size = leaves[one][own].size
          row.append(block.reshape(size, -1))
        rows.append(np.concatenate(row, axis=1))
      hessian = np.concatenate(rows)
      values = bases[stack.path].eigenvalues[layer]
      vectors = projected[:, start : start + len(values)]
      start += len(values)
      gradients = flat_of(plain, stack.path, stack.bias, layer, lead=1)
      expected = gradients @ hessian @ gradients.T
      has_negative |= bool(values.min() < 0)
      # float32 second derivatives.
      np.testing.assert_allclose(
        vectors * values @ vectors.T,
        expected,
        atol=1e-4 * np.abs(expected).max(),
      )
  assert has_negative


@pytest.mark.slow
def test_batch_size_makes_no_difference(case):
  layers, bases, _ = fitted(case, 12)
  one = project(case, layers, bases)
  other = project(case, layers, bases, batch_size=3)
  np.testing.assert_allclose(
    one.projections,
    other.projections,
    atol=1e-5 * np.abs(one.projections).max(),
  )
  assert one.projections.shape[1] == sum(
    basis.eigenvalues.size for basis in bases.values()
  )


def test_random_roots_come_near_the_exact_ones(case):
  _, exact, _ = fitted(case, 10**6)
  _, random, _ = fitted(case, 10**6, num_draws=400)
  for path, basis in exact.items():
    np.testing.assert_allclose(
      random[path].mean_curvatures, basis.mean_curvatures, rtol=0.1
    )


def test_directions_of_fewer_gradients_hold_nearly_as_much(case):
  _, exact, _ = fitted(case, 12)
  _, few, _ = fitted(case, 12, draws_for_directions=1)
  for path, own in few.items():
    # What it is a share of is that of all gradients in both.
    np.testing.assert_allclose(
      own.mean_curvatures, exact[path].mean_curvatures, rtol=1e-5
    )
    # 40 gradients of one draw each, in place of 160.
    assert (own.captured > exact[path].captured - 0.15).all()


def test_texts_of_several_lengths_are_as_padded_ones():
  """Outputs, and so the roots of an example, are as many as its tokens."""
  model = nn.Dense(3)
  generator = np.random.default_rng(0)

  def texts(length):
    return {
      'x': generator.normal(size=(8, length, 4)).astype(np.float32),
      'y': generator.integers(0, 3, (8, length)),
      'mask': np.ones((8, length), np.float32),
    }

  def padded(features):
    def longer(leaf):
      missing = 6 - leaf.shape[1]
      return np.pad(leaf, [(0, 0), (0, missing)] + [(0, 0)] * (leaf.ndim - 2))

    return jax.tree.map(longer, features)

  def output_loss(outputs, features):
    losses = optax.softmax_cross_entropy_with_integer_labels(
      outputs, features['y']
    )
    return (losses * features['mask']).sum(axis=1)

  split = curvature_products.SplitLoss(
    lambda params, features: model.apply(params, features['x']), output_loss
  )
  groups = [texts(4), texts(6)]
  params = model.init(jax.random.key(0), groups[0]['x'])
  leaves = parameter_selection.all_parameters(params)

  def inside(groups):
    roots = output_roots.OutputRoots.of(split, params, groups[0], None)
    assert roots.is_exact

    def draw(examples, place):
      return roots.with_draws(examples, [0, *place])

    few = draw(groups[0], ())
    gradients = factored_gradients.FactoredGradients(
      roots.pseudo_loss, params, selected=leaves, features=few
    )
    sample = factored_sample.FactoredSample(gradients, leaves, [groups], draw)
    layers = layers_lib.find(gradients, leaves, few)
    [only] = kronecker.fit(sample, layers, 100).stacks.values()
    return only.eigenvalues

  expected = inside([padded(x) for x in groups])
  # Sums in float32, in another order.
  np.testing.assert_allclose(
    inside(groups), expected, atol=1e-5 * expected.max()
  )
