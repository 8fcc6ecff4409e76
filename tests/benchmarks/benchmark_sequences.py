"""Examples/s of texts of many lengths: padded to one shape, and to buckets.

    taskset -c 0 python -m tests.benchmarks.benchmark_sequences

Lengths are log-normal, most of them a tenth of the longest. The same decoder
and basis project the same examples both ways, in turns, after compilation.
"""

import argparse
import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from influence_core.projection import projector as gradient_projection
from launch.example_tasks import transformer
from pipeline import ID_KEY, SourceCorpus, Task
from pipeline.tasks import loaded_task

_VOCABULARY = 1000
_BATCH_SIZE = 32


class Decoder(nn.Module):
  """Four layers without positions, so that any length will do."""

  @nn.compact
  def __call__(self, tokens):
    x = nn.Embed(_VOCABULARY, 128)(tokens)
    mask = nn.make_causal_mask(tokens)
    for _ in range(4):
      x = transformer.Block(4)(x, mask)
    return nn.Dense(_VOCABULARY)(x)


def make_task(texts: list[np.ndarray], longest: int, *, bucketed: bool) -> Task:
  """The mean loss of a text's tokens; 0 is padding."""
  model = Decoder()

  def loss(params, features):
    tokens = features['tokens']
    targets, mask = tokens[:, 1:], tokens[:, 1:] > 0
    logits = model.apply(params, tokens)[:, :-1]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return (losses * mask).sum(1) / mask.sum(1)

  def preprocess(raw):
    tokens = raw['tokens']
    missing = 0 if bucketed else longest - len(tokens)
    return {'tokens': np.pad(tokens, (0, missing))}

  return Task(
    name='texts',
    load_parameters=lambda: model.init(
      jax.random.key(0), jnp.zeros((1, 8), jnp.int32)
    ),
    per_example_loss=loss,
    corpus=SourceCorpus(
      {'train': [{'tokens': x} for x in texts]}, 'texts', '1'
    ),
    preprocess=preprocess,
    sequences=('tokens',) if bucketed else (),
  )


class Measured:
  """A task with its compiled projection and examples to project."""

  def __init__(self, task: Task, projection_dim: int):
    self._loaded = loaded_task.LoadedTask(task, task.load_parameters())
    generator = np.random.default_rng(0)
    vectors = {
      path: generator.normal(size=(projection_dim, *leaf.shape)).astype('f4')
      for path, leaf in self._loaded.selected.items()
    }
    self._projector = gradient_projection.GradientProjector(
      task.per_example_loss,
      self._loaded.params,
      eigenvectors=vectors,
      features=self._loaded.planned_features,
      num_examples=_BATCH_SIZE,
    )
    self._raw = [
      (raw[ID_KEY], raw)
      for _, raw in task.corpus.read_positions(range(task.corpus.num_examples))
    ]

  def run(self) -> tuple[float, np.ndarray]:
    """Examples/s, and norms of the gradients in the order of ids."""
    started = time.perf_counter()
    norms = {}
    for batch in self._loaded.preprocess_by_length(self._raw, _BATCH_SIZE):
      found = self._projector.project(batch.features)
      norms |= zip(batch.ids, found.squared_gradient_norms, strict=True)
    rate = len(self._raw) / (time.perf_counter() - started)
    return rate, np.array([norms[example_id] for example_id, _ in self._raw])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--num_examples', type=int, default=128)
  parser.add_argument('--longest', type=int, default=256)
  parser.add_argument('--projection_dim', type=int, default=16)
  parser.add_argument('--rounds', type=int, default=3)
  flags = parser.parse_args()
  generator = np.random.default_rng(0)
  lengths = generator.lognormal(
    np.log(flags.longest / 10), 0.8, flags.num_examples
  )
  texts = [
    generator.integers(1, _VOCABULARY, int(length)).astype(np.int32)
    for length in np.clip(lengths, 2, flags.longest)
  ]
  ways = {
    name: Measured(
      make_task(texts, flags.longest, bucketed=name == 'buckets'),
      flags.projection_dim,
    )
    for name in ('one shape', 'buckets')
  }
  first = {name: way.run()[1] for name, way in ways.items()}
  np.testing.assert_allclose(first['buckets'], first['one shape'], rtol=1e-3)
  rates: dict[str, list[float]] = {name: [] for name in ways}
  for _ in range(flags.rounds):
    for name, way in ways.items():
      rates[name].append(way.run()[0])
  for name, values in rates.items():
    ratio = statistics.median(
      x / y for x, y in zip(values, rates['one shape'], strict=True)
    )
    median = statistics.median(values)
    print(f'{name:<10} {median:8.1f} examples/s  ratio {ratio:.2f}')


if __name__ == '__main__':
  main()
