"""Ways to compute influence, as `influence reproduce` names and makes them."""

from collections.abc import Sequence
from typing import NamedTuple

from launch.reproduce import recipes
from launch.running import command_line

# Methods whose self-influence is measured.
DETECTORS = ('kronecker', 'arnoldi', 'random_gram', 'random')
# What needs no basis, see `pipeline.evaluation.baselines`.
BASELINES = {
  'embedding': 'cosine of what enters the last layer',
  'bm25': 'Robertson and Zaragoza, 2009: rare words in common',
  'gradient_norm': 'of the training example, whatever the query',
  'loss': 'of the training example, whatever the query',
}
DESCRIPTIONS = {
  'kronecker': 'coordinates of each layer, curvature inside (George et al., '
  '2018, for the directions)',
  'kronecker_few': 'the same, fewer of them',
  'kronecker_whitened': 'the same along random directions of whitened '
  'gradients (`--directions whitened`)',
  'kronecker_whitened_many': 'the same, more of them',
  'kronecker_checkpoints': 'ensemble of such indexes over the checkpoints that '
  '`tracin` sums over, each by its cosines',
  'arnoldi': 'Schioppa et al., 2022: leading eigenpairs of the curvature',
  'arnoldi_wide': 'the same, more of them, of the Gauss-Newton matrix',
  'random_gram': 'Park et al., 2023 (TRAK): random directions, Gram matrix',
  'random_gram_wide': 'the same, more of them',
  'random': 'inner products over random directions',
  'ekfac': 'Grosse et al., 2023: EK-FAC, all directions',
  'cg': 'conjugate gradients on the damped Gauss-Newton matrix',
  'lissa': 'Koh and Liang, 2017: LiSSA on the same',
  'gradient': 'inner products of gradients',
  'tracin': 'Pruthi et al., 2020 (TracIn): the same over several checkpoints',
  **BASELINES,
}


class Method(NamedTuple):
  """A way to compute influence.

  Attributes:
    name: in tables.
    argv: of the command that makes its basis, without task and place.
    task_args: of the task, besides those that all methods have.
  """

  name: str
  argv: recipes.Argv
  task_args: recipes.Argv = ()


def index_steps(
  prefix: str, methods: Sequence[Method], task: recipes.Argv, place: str
) -> list[recipes.Step]:
  """The basis and the index of each method.

  Args:
    prefix: of the names that steps have after 'basis' and 'project'.
    methods: to make.
    task: flags that name the task.
    place: directory; of it are `index_path`.
  """
  steps = []
  for method in methods:
    extra = command_line.repeated('--task_arg', method.task_args)
    steps += recipes.index_steps(
      f'{prefix}{method.name}',
      method.argv,
      (*task, *extra),
      basis=f'{place}/{method.name}/basis',
      index=index_path(place, method.name),
    )
  return steps


def index_path(place: str, name: str) -> str:
  """The index of the method with that name."""
  return f'{place}/{name}/index'


def name_of(path: str) -> str:
  """The method whose `index_path` it is, or a baseline by its name."""
  return path if path in BASELINES else path.split('/')[-2]


# Headings of `costs`.
COSTS = ('bytes/example', 'basis, s', 'examples/s')


def costs(step: str, found: recipes.Results) -> list[str]:
  """What an index of float32 takes; empty without a basis.

  Args:
    step: prefix and name of a method.
    found: results.
  """
  if f'basis {step}' not in found:
    return [''] * len(COSTS)
  return ensemble_costs([step], found)


def ensemble_costs(steps: Sequence[str], found: recipes.Results) -> list[str]:
  """The same of several indexes together."""
  bases, projections = (
    [found[f'{kind} {step}'] for step in steps] for kind in ('basis', 'project')
  )
  num_bytes = 4 * sum(len(x['result']['eigenvalues']) for x in bases)
  rates = [x['result']['examples_per_second'] for x in projections]
  rate = 1 / sum(1 / x for x in rates)
  seconds = sum(x['seconds'] for x in bases)
  return [f'{num_bytes:,}', f'{seconds:.0f}', f'{rate:,.0f}']
