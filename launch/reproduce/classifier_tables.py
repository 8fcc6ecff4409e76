"""Tables of `influence reproduce` for a classifier."""

from collections.abc import Sequence

from launch.reproduce import methods as methods_lib, recipes, results_page
from launch.reproduce.methods import Method

MODELS = {'model': 'memorised', 'underfitted': 'underfitted'}
# Methods whose scores damping is chosen for: in units of eigenvalues, and
# relative to the mean curvature of each layer.
_DAMPED = ('arnoldi', 'arnoldi_wide', 'random_gram', 'random_gram_wide')
_DAMPED_BY_LAYER = ('kronecker', 'kronecker_few')
_RELATIVE_DAMPINGS = ('0.03x', '0.1x', '0.3x', '1x')
# What stands beside the methods, and the method that all are compared with.
BASELINES = ('embedding', 'gradient_norm', 'loss')
COMPARED_WITH = 'ekfac'


def damped(
  dampings: Sequence[str],
) -> list[tuple[Sequence[str], Sequence[str]]]:
  """Methods with the dampings that are tried for them.

  Args:
    dampings: in units of eigenvalues.
  """
  return [(_DAMPED, dampings), (_DAMPED_BY_LAYER, _RELATIVE_DAMPINGS)]


def render(
  methods: Sequence[Method], dampings: Sequence[str], found: recipes.Results
) -> list[str]:
  """Of training, of all methods, and of what an index is good for."""
  return [
    *_training_lines(found),
    *_methods_table(methods, found),
    *_damping_table(dampings, found),
    *_detection_table(found),
    *_uses_table(found),
  ]


def _training_lines(found: recipes.Results) -> list[str]:
  lines = []
  for model, what in MODELS.items():
    result = found[f'train {model}']['result']
    lines.append(
      f'* {what} model: {result["train_accuracy"]:.1%} of the labels it was '
      f'given, {result["test_accuracy"]:.1%} of the test labels'
    )
  return [*lines, '']


def _methods_table(
  methods: Sequence[Method], found: recipes.Results
) -> list[str]:
  lds = found['lds']['result']
  names = [*(method.name for method in methods), *BASELINES]
  rows = []
  for name, score in zip(names, lds['scores'], strict=True):
    rows.append(
      [
        f'`{name}`',
        methods_lib.DESCRIPTIONS[name],
        results_page.with_interval(score, 'lds'),
        results_page.with_interval(score, 'difference', 'difference_'),
        *methods_lib.costs(f'model {name}', found),
      ]
    )
  for step, what in (
    ('lds half', '25 leading pairs of `arnoldi`'),
    ('lds half at random', '25 random pairs of `arnoldi`'),
    ('lds cosine', '`gradient`, divided by gradient norms'),
  ):
    [score] = found[step]['result']['scores']
    figure = results_page.with_interval(score, 'lds')
    rows.append(['', what, figure, *[''] * (1 + len(methods_lib.COSTS))])
  return [
    f'Linear datamodelling score: {lds["num_subsets"]} random halves trained '
    f'anew, {lds["num_repeats"]} times each with other seeds, '
    f'{lds["num_queries"]} test queries, seed {lds["seed"]}, 95 % interval '
    'over queries; no damping but where a method needs it. The noise ceiling '
    f'is {results_page.with_interval(lds["ceiling"], "mean")}: no prediction '
    'can score higher, as far as trainings of the same half agree. Differences '
    'are taken query by query, so that their intervals say more than those of '
    'two scores do. Baselines without a basis stand below the methods.',
    '',
    *results_page.table(
      [
        *('method', 'of', 'score', f'difference to `{COMPARED_WITH}`'),
        *methods_lib.COSTS,
      ],
      rows,
    ),
  ]


def _damping_table(
  dampings: Sequence[str], found: recipes.Results
) -> list[str]:
  """Scores at the damping that is best for other queries."""
  rows = []
  for names, tried in damped(dampings):
    for number, name in enumerate(names):
      validation, scores = (
        {x: found[f'lds {kind} {x}']['result']['scores'][number] for x in tried}
        for kind in ('validation', 'damped')
      )
      best = max(tried, key=lambda x: validation[x]['lds'])
      at_each = (f'{scores[x]["lds"]:.3f} at {x}' for x in tried)
      rows.append(
        [
          f'`{name}`',
          best,
          results_page.with_interval(scores[best], 'lds'),
          ', '.join(at_each),
        ]
      )
  return [
    'The same with damping, chosen by the score of 50 other test queries; with '
    'an x it is relative to the mean curvature of each layer.',
    '',
    *results_page.table(['method', 'damping', 'score', 'at each'], rows),
  ]


def _detection_table(found: recipes.Results) -> list[str]:
  rows = []
  for model, what in MODELS.items():
    done = {
      name: found[f'detection {model} {name}']['result']
      for name in methods_lib.DETECTORS
    }
    shown = {
      f'self-influence, `{name}`': results_page.row_of(
        result['scores'], score='self_influence'
      )
      for name, result in done.items()
    }
    for score in ('loss', 'gradient_norm', 'random'):
      shown[score.replace('_', ' ')] = results_page.row_of(
        done['arnoldi']['scores'], score=score
      )
    for name, row in shown.items():
      figures = results_page.with_intervals(row, ('average_precision', 'auc'))
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


def _uses_table(found: recipes.Results) -> list[str]:
  result = found['counterfactual']['result']
  rows = [
    [
      f'loss of {result["num_queries"]} queries, trained without their '
      f'{result["k"]} top proponents',
      *(
        results_page.with_interval(
          results_page.row_of(result['changes'], removed=name),
          'change_of_loss',
        )
        for name in ('proponents', 'embedding', 'random')
      ),
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
    own, similar, chance = (
      results_page.row_of(result['figures'], score=x, figure=y)
      for x, y in (
        ('influence', figure),
        ('embedding', figure),
        ('influence', 'expected_precision'),
      )
    )
    rows.append(
      [
        f'{what}, {result["num_queries"]} queries',
        results_page.with_interval(own, 'mean'),
        results_page.with_interval(similar, 'mean'),
        f'{chance["mean"]:.3f}',
      ]
    )
  return [
    'What is found with the index of `arnoldi` (memorised model), and by the '
    'cosine of what enters the last layer, with 95 % intervals over queries.',
    '',
    *results_page.table(['figure', 'found', 'by cosine', 'at random'], rows),
  ]
