"""What `influence reproduce` looks at besides methods: exactness, options."""

from collections.abc import Sequence

from launch.reproduce import recipes, results_page
from launch.running import command_line

_DAMPING = ('--damping', '0.01')


def agreement_steps(
  out: str,
  example: str,
  training: recipes.Argv,
  sample: recipes.Argv,
  wide: int,
) -> list[recipes.Step]:
  """Arnoldi, EK-FAC and gradients beside the explicit inverse.

  Args:
    out: directory.
    example: to train.
    training: flags of a training of at most 8,192 parameters.
    sample: flags with the sample of all curvatures.
    wide: dimension of the largest basis.
  """
  place = f'{out}/small'
  task = recipes.task_flags(example, f'{place}/model')
  queries = ('--query_split', 'test[:20]')
  solved = ('query-basis', *queries, '--method')
  fit = (
    *('fit-basis', '--num_trace_probes', '0', *sample),
    *('--curvature', 'gauss_newton', '--projection_dim'),
  )
  bases = {
    'exact': (*solved, 'exact', *_DAMPING, *sample),
    'ekfac': (*solved, 'ekfac', *_DAMPING, *sample),
    'gradient': (*solved, 'gradient'),
    **{
      f'arnoldi_{num}': (*fit, str(num), '--num_iterations', str(2 * num))
      for num in (wide // 8, wide // 2, wide)
    },
  }
  steps = [
    recipes.Step(
      'train small',
      ('train-example', example, '--workdir', f'{place}/model', *training),
    )
  ]
  for name, basis in bases.items():
    steps += recipes.index_steps(
      f'small {name}',
      basis,
      task,
      basis=f'{place}/{name}_basis',
      index=f'{place}/{name}',
    )
  others = command_line.repeated(
    '--index', (f'{place}/{name}' for name in bases if name != 'exact')
  )
  agreement = (
    *('evaluate', 'agreement', *task, '--reference', f'{place}/exact'),
    *(*others, *queries, *_DAMPING),
  )
  return [*steps, recipes.Step('agreement', agreement)]


def agreement_table(found: recipes.Results) -> list[str]:
  """Correlations with the explicit inverse."""
  result = found['agreement']['result']
  figures = ('pearson', 'spearman')
  rows = [
    [
      f'`{row["method"].rpartition("/")[2]}`',
      *results_page.with_intervals(row, figures),
    ]
    for row in result['agreement']
  ]
  return [
    'Agreement with the explicit inverse of the damped Gauss-Newton matrix, '
    f'over {result["num_examples"]:,} examples for each of '
    f'{result["num_queries"]} queries, on a model that is small enough.',
    '',
    *results_page.table(['method', *figures], rows),
  ]


def sensitivity_steps(
  measured: recipes.Argv, wide: int, knobs: Sequence[str]
) -> list[recipes.Step]:
  """One option at a time, from the defaults and from a larger basis.

  Args:
    measured: flags with task, queries and place.
    wide: dimension of the larger basis.
    knobs: NAME=VALUE,... of the first.
  """
  measure = ('evaluate', 'sensitivity', *measured)
  fixed = (
    f'projection_dim={wide}',
    f'num_iterations={2 * wide}',
    'curvature=gauss_newton',
    'damping=0.01',
  )
  pairs = ','.join(str(wide // part) for part in (16, 8, 4, 2, 1))
  wide_knobs = (
    f'projection_dim={pairs}',
    'damping=0,0.001,0.003,0.01,0.03,0.1',
  )
  return [
    recipes.Step(
      'sensitivity',
      (*measure, *command_line.repeated('--knob', knobs)),
    ),
    recipes.Step(
      'sensitivity wide',
      (
        *measure,
        *command_line.repeated('--fixed', fixed),
        *command_line.repeated('--knob', wide_knobs),
      ),
    ),
  ]


def sensitivity_table(found: recipes.Results) -> list[str]:
  """Every option and value beside both metrics."""
  rows = []
  for step in ('sensitivity', 'sensitivity wide'):
    result = found[step]['result']
    fixed = ', '.join(f'{k}={v}' for k, v in result['fixed'].items())
    by_value: dict[tuple[str, str], dict[str, str]] = {}
    for row in result['rows']:
      shown = results_page.with_interval(row, 'mean')
      by_value.setdefault((row['knob'], row['value']), {})[row['metric']] = (
        shown
      )
    rows += [
      [
        fixed or 'defaults',
        f'`{knob}`',
        f'`{value}`',
        metrics['lds'],
        metrics['average_precision'],
      ]
      for (knob, value), metrics in by_value.items()
    ]
  return [
    'Sensitivity of Arnoldi influence on the memorised model, one option at a '
    'time.',
    '',
    *results_page.table(
      [
        'others at',
        'option',
        'value',
        'linear datamodelling score',
        'average precision of wrong labels',
      ],
      rows,
    ),
  ]
