"""Models of several seeds on the same data, each alone and all together."""

import dataclasses

from launch.reproduce import recipes, results_page

_BAD = 'label <> true_label'


@dataclasses.dataclass(frozen=True)
class EnsembleRecipe:
  """Indexes of models that differ in their seed, and ensembles of them.

  Attributes:
    example: to train.
    training: flags of a training that memorises its labels.
    num_models: of seeds 0, 1, ...
    basis: flags of fit-basis.
    num_subsets: parts of the corpus to train on.
    num_repeats: trainings on each of them.
    needs_data: whether a TFDS directory must be given.
  """

  example: str
  training: recipes.Argv
  num_models: int
  basis: recipes.Argv
  num_subsets: int
  num_repeats: int
  needs_data: bool

  @property
  def compared(self) -> dict[str, tuple[int, ...]]:
    """Models of what is measured, by name: each alone, and the first few."""
    numbers = range(self.num_models)
    return {
      **{f'seed {x}': (x,) for x in numbers},
      **{f'the first {x}': tuple(numbers[:x]) for x in numbers[2:]},
      f'all {self.num_models}': tuple(numbers),
    }

  def steps(self, out: str, data_dir: str | None) -> list[recipes.Step]:
    """All that is run, in order; files go to `out`."""
    steps = []
    for number in range(self.num_models):
      place = f'{out}/model_{number}'
      train = (
        *('train-example', self.example, '--workdir', place, *self.training),
        # One corpus for all, whoever makes it.
        *('--data_dir', data_dir or f'{out}/data', '--seed', str(number)),
      )
      steps += [
        recipes.Step(f'train {number}', train),
        *recipes.index_steps(
          str(number),
          ('fit-basis', *self.basis),
          recipes.task_flags(self.example, place),
          basis=f'{place}/basis',
          index=_index(out, number),
        ),
      ]
    return [*steps, self._datamodelling_scores(out), *self._detections(out)]

  def tables(self, found: recipes.Results) -> list[str]:
    """Figures of each model, and of ensembles."""
    lds = found['lds']['result']
    about = found[f'detection all {self.num_models}']['result']
    rows = []
    for name, score in zip(self.compared, lds['scores'], strict=True):
      result = found[f'detection {name}']['result']
      own = results_page.row_of(result['scores'], score='self_influence')
      rows.append(
        [
          name,
          results_page.with_interval(score, 'lds'),
          results_page.with_interval(score, 'difference', 'difference_'),
          *results_page.with_intervals(own, ('average_precision',)),
        ]
      )
    alone = [x['lds'] for x in lds['scores'][: self.num_models]]
    return [
      f'{self.num_models} models of `{self.example}`, other seeds, '
      f'`fit-basis {" ".join(self.basis)}`. Linear datamodelling score: '
      f'{lds["num_subsets"]} random halves trained anew, {lds["num_repeats"]} '
      f'times each, {lds["num_queries"]} test queries, seed {lds["seed"]}, 95 '
      '% interval over queries; the noise ceiling is '
      f'{results_page.with_interval(lds["ceiling"], "mean")}, the mean of '
      f'models alone {sum(alone) / len(alone):.3f}. Average precision of '
      f'self-influence for {about["num_bad"]:,} wrong labels of '
      f'{about["num_examples"]:,}.',
      '',
      *results_page.table(
        ['models', 'score', 'difference to seed 0', 'average precision'], rows
      ),
    ]

  def _datamodelling_scores(self, out: str) -> recipes.Step:
    indexes = (
      ('--index', *(_index(out, number) for number in numbers))
      for numbers in self.compared.values()
    )
    return recipes.Step(
      'lds',
      (
        *('evaluate', 'lds', '--out', f'{out}/lds'),
        *('--query_split', 'test[:50]'),
        *('--num_subsets', str(self.num_subsets)),
        *('--num_repeats', str(self.num_repeats)),
        *('--against', _index(out, 0)),
        *(flag for flags in indexes for flag in flags),
      ),
    )

  def _detections(self, out: str) -> list[recipes.Step]:
    return [
      recipes.Step(
        f'detection {name}',
        (
          *('evaluate', 'detection', '--bad', _BAD),
          *('--out', f'{out}/detection/{name.replace(" ", "_")}'),
          *('--index', *(_index(out, number) for number in numbers)),
        ),
      )
      for name, numbers in self.compared.items()
    ]


def _index(out: str, number: int) -> str:
  return f'{out}/model_{number}/index'


_BASIS = ('--method', 'kronecker', '--coordinates_per_layer')
DIGITS = EnsembleRecipe(
  'digits_cnn',
  training=('--flip_labels', '0.1'),
  num_models=5,
  basis=(*_BASIS, '400', '--sample_size', '1497'),
  num_subsets=50,
  num_repeats=2,
  needs_data=False,
)
MNIST = EnsembleRecipe(
  'mnist_cnn',
  training=(
    *('--flip_labels', '0.1', '--train_split', 'train[:1500]'),
    *('--num_epochs', '40'),
  ),
  num_models=5,
  basis=(*_BASIS, '350', '--sample_size', '1500'),
  num_subsets=50,
  num_repeats=2,
  needs_data=True,
)
