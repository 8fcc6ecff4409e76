"""All methods and metrics on a classifier that was given wrong labels."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

from launch import recipes, results_page

_QUERIES = ('--query_split', 'test[:50]')
_DETECTORS = ('arnoldi', 'random_gram', 'random')
_SHOWN = {
  'arnoldi': 'Schioppa et al., 2022: 50 leading eigenpairs of the Hessian',
  'random_gram': 'Park et al., 2023 (TRAK): 50 random directions, Gram matrix',
  'random': 'inner products over 50 random directions',
  'ekfac': 'Grosse et al., 2023: EK-FAC, all directions',
  'cg': 'conjugate gradients on the damped Gauss-Newton matrix',
  'lissa': 'Koh and Liang, 2017: LiSSA on the same',
  'gradient': 'inner products of gradients',
  'tracin': 'Pruthi et al., 2020 (TracIn): the same over four checkpoints',
}
_MODELS = {'model': 'memorised', 'underfitted': 'underfitted'}


class Method(NamedTuple):
  """A way to compute influence.

  Attributes:
    name: in tables.
    argv: of the command that makes its basis, without task and place.
    task_args: of the task, besides the work directory.
  """

  name: str
  argv: recipes.Argv
  task_args: recipes.Argv = ()

  @property
  def has_self_influence(self) -> bool:
    return self.argv[0] != 'query-basis'

  @property
  def shown(self) -> str:
    """What it stands for, in tables."""
    return _SHOWN[self.name]


@dataclasses.dataclass(frozen=True)
class ClassifierRecipe:
  """All methods on a classifier that was given wrong labels.

  Attributes:
    example: to train.
    training: flags of a training that memorises its labels.
    underfitted: flags of one that does not.
    damping: of the solvers on the query side, in units of eigenvalues.
    sample_size: of every curvature.
    needs_data: whether a TFDS directory must be given.
  """

  example: str
  training: recipes.Argv
  underfitted: recipes.Argv
  damping: float
  sample_size: int
  needs_data: bool

  @property
  def methods(self) -> list[Method]:
    sample = ('--sample_size', str(self.sample_size))
    solved = ('query-basis', *_QUERIES, '--method')
    damped = ('--damping', str(self.damping), *sample)
    return [
      Method('arnoldi', ('fit-basis', '--num_trace_probes', '0', *sample)),
      Method('random_gram', ('random-basis', *sample)),
      Method('random', ('random-basis', '--method', 'random')),
      Method('ekfac', (*solved, 'ekfac', *sample)),
      Method('cg', (*solved, 'cg', '--num_products', '50', *damped)),
      Method('lissa', (*solved, 'lissa', '--num_products', '200', *damped)),
      Method('gradient', (*solved, 'gradient')),
      Method('tracin', (*solved, 'gradient'), ('epochs=all',)),
    ]

  def steps(self, out: str, data_dir: str | None) -> list[recipes.Step]:
    """All that is run, in order.

    Args:
      out: directory.
      data_dir: TFDS directory; None where the example makes its data.
    """
    return [
      *self._trainings(out, data_dir),
      *self._indexes(out, 'model', self.methods),
      *self._indexes(
        out, 'underfitted', [x for x in self.methods if x.has_self_influence]
      ),
      *self._evaluations(out),
    ]

  def _trainings(self, out: str, data_dir: str | None) -> list[recipes.Step]:
    data = () if data_dir is None else ('--data_dir', data_dir)
    return [
      recipes.Step(
        f'train {name}',
        (
          *('train-example', self.example, '--workdir', f'{out}/{name}'),
          *flags,
          *data,
        ),
      )
      for name, flags in (
        ('model', self.training),
        ('underfitted', self.underfitted),
      )
    ]

  def _task(self, out: str, model: str) -> recipes.Argv:
    return recipes.task_flags(self.example, f'{out}/{model}')

  def _indexes(
    self, out: str, model: str, methods: Sequence[Method]
  ) -> list[recipes.Step]:
    steps = []
    for method in methods:
      place = f'{out}/{model}/{method.name}'
      extra = tuple(x for a in method.task_args for x in ('--task_arg', a))
      task = (*self._task(out, model), *extra)
      command, *flags = method.argv
      basis = (command, *task, '--out', f'{place}/basis', *flags)
      index = ('--basis', f'{place}/basis', '--index', f'{place}/index')
      name = f'{model} {method.name}'
      steps += [
        recipes.Step(f'basis {name}', basis),
        recipes.Step(f'project {name}', ('project', *task, *index)),
      ]
    return steps

  def _evaluations(self, out: str) -> list[recipes.Step]:
    task = self._task(out, 'model')
    scores = (*task, *_QUERIES, '--out', f'{out}/lds')
    indexes = {x.name: f'{out}/model/{x.name}/index' for x in self.methods}
    arnoldi = ('--index', indexes['arnoldi'])
    every = tuple(x for path in indexes.values() for x in ('--index', path))
    half = ('--projection_dim', '25')
    return [
      recipes.Step('lds', ('evaluate', 'lds', *scores, *every)),
      recipes.Step('lds half', ('evaluate', 'lds', *scores, *arnoldi, *half)),
      recipes.Step(
        'lds half at random',
        (
          *('evaluate', 'lds', *scores, *arnoldi, *half),
          *('--pair_choice', 'random'),
        ),
      ),
      recipes.Step(
        'lds cosine',
        (
          *('evaluate', 'lds', *scores, '--index', indexes['gradient']),
          *('--normalization', 'gradient_norm'),
        ),
      ),
      *(
        recipes.Step(
          f'detection {model} {name}',
          (
            *('evaluate', 'detection', '--bad', 'label <> true_label'),
            *('--index', f'{out}/{model}/{name}/index'),
            *('--out', f'{out}/detection/{model}_{name}'),
          ),
        )
        for model in ('model', 'underfitted')
        for name in ('arnoldi', 'random_gram', 'random')
      ),
      recipes.Step(
        'counterfactual',
        (
          *('evaluate', 'counterfactual', *task, *arnoldi, '--k', '50'),
          *('--query_split', 'test[:10]', '--out', f'{out}/lds'),
        ),
      ),
      *self._retrievals(out, (*task, *arnoldi)),
    ]

  def _retrievals(self, out: str, where: recipes.Argv) -> list[recipes.Step]:
    return [
      recipes.Step(
        f'retrieval {name}',
        (
          *('evaluate', 'retrieval', *where, '--relevant', relevant),
          *flags,
          *('--out', f'{out}/retrieval_{name}'),
        ),
      )
      for name, relevant, flags in (
        ('class', 'label = query_label', _QUERIES),
        (
          'duplicate',
          'id = query_id',
          ('--query_split', 'train[:100]', '--normalization', 'cosine'),
        ),
        (
          'relabelled',
          'label <> true_label and true_label = query_label',
          (*_QUERIES, '--kind', 'opponents'),
        ),
      )
    ]

  def tables(self, found: recipes.Results) -> list[str]:
    """Of training, of all methods, and of what Arnoldi's index is good for."""
    return [
      *self._training_lines(found),
      *self._methods_table(found),
      *_detection_table(found),
      *_uses_table(found),
    ]

  def _training_lines(self, found: recipes.Results) -> list[str]:
    lines = []
    for model, what in _MODELS.items():
      result = found[f'train {model}']['result']
      lines.append(
        f'* {what} model: {result["train_accuracy"]:.1%} of the labels it was '
        f'given, {result["test_accuracy"]:.1%} of the test labels'
      )
    return [*lines, '']

  def _methods_table(self, found: recipes.Results) -> list[str]:
    lds = found['lds']['result']
    scores = [(row['lds'], row['low'], row['high']) for row in lds['scores']]
    rows = []
    for method, score in zip(self.methods, scores, strict=True):
      seconds = (
        found[f'{step} model {method.name}']['seconds']
        for step in ('basis', 'project')
      )
      rows.append(
        [
          method.name,
          method.shown,
          results_page.with_interval(*score),
          *(f'{value:.0f}' for value in seconds),
        ]
      )
    for name, shown in (
      ('lds half', '25 leading pairs of arnoldi'),
      ('lds half at random', '25 random pairs of arnoldi'),
      ('lds cosine', 'gradient, divided by gradient norms'),
    ):
      [row] = found[name]['result']['scores']
      score = (row['lds'], row['low'], row['high'])
      rows.append([shown, '', results_page.with_interval(*score), '', ''])
    return [
      f'Linear datamodelling score: {lds["num_subsets"]} random halves trained '
      f'anew, {lds["num_queries"]} test queries, seed {lds["seed"]}, 95 % '
      'interval over queries; no damping but where a method needs it.',
      '',
      *results_page.table(
        ['method', 'of', 'score', 'basis, s', 'projection, s'], rows
      ),
    ]


def _detection_table(found: recipes.Results) -> list[str]:
  rows = []
  for model, what in _MODELS.items():
    done = {x: found[f'detection {model} {x}']['result'] for x in _DETECTORS}
    shown = {
      f'self-influence, {name}': _row(done[name], 'self_influence')
      for name in _DETECTORS
    }
    for score in ('loss', 'gradient_norm', 'random'):
      shown[score.replace('_', ' ')] = _row(done['arnoldi'], score)
    for name, row in shown.items():
      figures = (
        results_page.with_interval(
          *(row[f'{metric}{end}'] for end in ('', '_low', '_high'))
        )
        for metric in ('average_precision', 'auc')
      )
      rows.append([what, name, *figures])
  about = found['detection model arnoldi']['result']
  return [
    f'Wrong labels, {about["num_bad"]:,} of {about["num_examples"]:,} training '
    f'examples; 95 % interval of {about["num_bootstrap"]} resamplings, seed '
    f'{about["seed"]}.',
    '',
    *results_page.table(
      ['model', 'ranked by', 'average precision', 'AUC'], rows
    ),
  ]


def _row(result: Mapping[str, Any], score: str) -> Mapping[str, Any]:
  [row] = [x for x in result['scores'] if x['score'] == score]
  return row


def _uses_table(found: recipes.Results) -> list[str]:
  result = found['counterfactual']['result']
  proponents, chance = (
    results_page.with_interval(row['change_of_loss'], row['low'], row['high'])
    for row in result['changes']
  )
  rows = [
    [
      f'loss of {result["num_queries"]} queries, trained without their '
      f'{result["k"]} top proponents',
      f'+{proponents}',
      chance,
    ]
  ]
  for name, what, figure in (
    ('class', 'same class among the top 10 proponents', 'precision_at_10'),
    ('duplicate', 'reciprocal rank of a copy of the query', 'reciprocal_rank'),
    (
      'relabelled',
      "wrong labels of the query's class among the top 10 opponents",
      'precision_at_10',
    ),
  ):
    result = found[f'retrieval {name}']['result']
    figures = {row['figure']: row for row in result['figures']}
    row = figures[figure]
    rows.append(
      [
        f'{what}, {result["num_queries"]} queries',
        results_page.with_interval(row['mean'], row['low'], row['high']),
        f'{figures["expected_precision"]["mean"]:.3f}',
      ]
    )
  return [
    'What is found with the Arnoldi index (memorised model), with 95 % '
    'intervals over queries.',
    '',
    *results_page.table(['figure', 'found', 'at random'], rows),
  ]


_QUERIES = ('--query_split', 'test[:50]')

DIGITS = ClassifierRecipe(
  'digits_cnn',
  training=('--flip_labels', '0.1'),
  underfitted=('--flip_labels', '0.1', '--num_epochs', '5'),
  damping=0.01,
  sample_size=1497,
  needs_data=False,
)
MNIST = ClassifierRecipe(
  'mnist_cnn',
  training=(
    *('--flip_labels', '0.1', '--num_epochs', '20'),
    *('--train_split', 'train[:5000]'),
  ),
  underfitted=(
    *('--flip_labels', '0.1', '--num_epochs', '3'),
    *('--train_split', 'train[:5000]'),
  ),
  damping=0.01,
  sample_size=1024,
  needs_data=True,
)
