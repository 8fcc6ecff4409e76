"""Tables of `influence reproduce` for a translator."""

from collections.abc import Mapping, Sequence
from typing import Any

from launch import methods as methods_lib
from launch import recipes, results_page
from launch.methods import Method

# Methods whose self-influence is measured.
DETECTORS = ('arnoldi', 'random_gram', 'random')
KINDS = ('wrong_pair', 'wrong_language', 'copy', 'truncated')
_OTHER_SCORES = ('gradient_norm', 'loss', 'random')


def render(
  methods: Sequence[Method],
  projection_dim: int,
  few: int,
  damping: str,
  parameter_paths: str,
  found: recipes.Results,
) -> list[str]:
  """Quality of the model, wrong pairs found, and top proponents.

  Args:
    methods: that were compared.
    projection_dim: of the bases.
    few: pairs of the smaller choices.
    damping: of methods with the whole curvature.
    parameter_paths: that influence is taken over.
    found: results.
  """
  return [
    f'* BLEU of the test split: {found["train"]["result"]["bleu"]:.1f}',
    f'* influence over the parameters `{parameter_paths}`',
    '',
    *_detection_table(projection_dim, few, found),
    *_methods_table(methods, damping, found),
    *_proponents_table(found['topk']['result']),
  ]


def _detection_table(
  projection_dim: int, few: int, found: recipes.Results
) -> list[str]:
  about = found['detection arnoldi']['result']
  shown = {
    **{f'detection {x}': f'self-influence, `{x}`' for x in DETECTORS},
    'detection few': f'self-influence, {few} leading pairs of `arnoldi`',
    'detection few at random': (
      f'self-influence, {few} random pairs of `arnoldi`'
    ),
  }
  rows = [
    _detection_row('all', found[step]['result'], 'self_influence', name)
    for step, name in shown.items()
  ]
  rows += _other_rows('all', about)
  for kind in KINDS:
    result = found[f'detection {kind}']['result']
    name = 'self-influence, `arnoldi`'
    rows.append(_detection_row(kind, result, 'self_influence', name))
    rows += _other_rows(kind, result)
  return [
    f'Wrong pairs, {about["num_bad"]:,} of {about["num_examples"]:,}, found '
    f'with {projection_dim} eigenpairs or directions; 95 % interval of '
    f'{about["num_bootstrap"]} resamplings, seed {about["seed"]}. Each kind '
    'is ranked among the right pairs.',
    '',
    *results_page.table(
      ['kind', 'pairs', 'ranked by', 'AUC', 'average precision'], rows
    ),
  ]


def _other_rows(kind: str, result: Mapping[str, Any]) -> list[list[str]]:
  return [
    _detection_row(kind, result, score, score.replace('_', ' '))
    for score in _OTHER_SCORES
  ]


def _detection_row(
  kind: str, result: Mapping[str, Any], score: str, shown: str
) -> list[str]:
  row = results_page.row_of(result['scores'], 'score', score)
  figures = (
    results_page.with_interval(row, metric, f'{metric}_')
    for metric in ('auc', 'average_precision')
  )
  return [kind.replace('_', ' '), f'{result["num_bad"]:,}', shown, *figures]


def _methods_table(
  methods: Sequence[Method], damping: str, found: recipes.Results
) -> list[str]:
  """Each method's answer to training pairs as queries."""
  agreement = found['agreement']['result']
  rows = []
  for method in methods:
    own = found[f'retrieval {method.name}']['result']['figures']
    rank = results_page.row_of(own, 'figure', 'reciprocal_rank')
    compared = ['', '']
    for row in agreement['agreement']:
      if row['index'].endswith(f'/{method.name}/index'):
        compared = [
          results_page.with_interval(row, figure, f'{figure}_')
          for figure in ('spearman', 'top_10_in_common')
        ]
    rows.append(
      [
        f'`{method.name}`',
        methods_lib.DESCRIPTIONS[method.name],
        results_page.with_interval(rank, 'mean'),
        *compared,
        *methods_lib.seconds(method.name, found),
      ]
    )
  return [
    f'{agreement["num_queries"]} training pairs as queries of all '
    f'{agreement["num_examples"]:,}: reciprocal rank of the query itself, '
    f'without damping; agreement with `cg`, damping {damping}; 95 % intervals '
    f'over queries, seed {agreement["seed"]}.',
    '',
    *results_page.table(
      [
        *('method', 'of', 'reciprocal rank', 'Spearman', 'top 10 in common'),
        *('basis, s', 'projection, s'),
      ],
      rows,
    ),
  ]


def _proponents_table(result: Mapping[str, Any]) -> list[str]:
  """The strongest proponents of each query."""
  rows = []
  for query in result['queries']:
    own = [
      row
      for row in result['results']
      if row['query_id'] == query['id'] and row['kind'] == 'proponent'
    ]
    rows += [
      [
        '' if number else f'{query["source"]} → {query["target"]}',
        f'{row["source"]} → {row["target"]}',
        row['corruption'],
      ]
      for number, row in enumerate(own)
    ]
  return [
    f'Top proponents of {len(result["queries"])} test sentences, divided by '
    'gradient norms.',
    '',
    *results_page.table(['query', 'proponent', 'corruption'], rows),
  ]
