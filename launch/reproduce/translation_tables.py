"""Tables of `influence reproduce` for a translator."""

from collections.abc import Mapping, Sequence
from typing import Any

from launch.reproduce import methods as methods_lib, recipes, results_page
from launch.reproduce.methods import Method

KINDS = ('wrong_pair', 'wrong_language', 'copy', 'truncated')
# What stands beside the methods, measured with the index of one of them.
BASELINES = ('bm25', 'embedding', 'gradient_norm')
WITH_BASELINES = 'arnoldi'
_OTHER_SCORES = ('gradient_norm', 'loss', 'random')


def detection_table(
  projection_dim: int, few: int, found: recipes.Results
) -> list[str]:
  """Wrong pairs, all and by kind, by each score.

  Args:
    projection_dim: of the bases.
    few: pairs of the smaller choices.
    found: results.
  """
  about = found['detection arnoldi']['result']
  shown = {
    **{
      f'detection {name}': f'self-influence, `{name}`'
      for name in methods_lib.DETECTORS
    },
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
  row = results_page.row_of(result['scores'], score=score)
  figures = results_page.with_intervals(row, ('auc', 'average_precision'))
  return [kind.replace('_', ' '), f'{result["num_bad"]:,}', shown, *figures]


def methods_table(
  methods: Sequence[Method], damping: str, found: recipes.Results
) -> list[str]:
  """Each method's answer to training pairs as queries.

  Args:
    methods: that were compared.
    damping: that agreement was measured with.
    found: results.
  """
  agreement = found['agreement']['result']
  reference = methods_lib.name_of(agreement['reference'])
  compared = {
    methods_lib.name_of(row['method']): results_page.with_intervals(
      row, ('spearman', 'top_10_in_common')
    )
    for row in agreement['agreement']
  }
  rows = []
  for name in (*(method.name for method in methods), *BASELINES):
    is_baseline = name in BASELINES
    step = WITH_BASELINES if is_baseline else name
    rank = results_page.row_of(
      found[f'retrieval {step}']['result']['figures'],
      score=name if is_baseline else 'influence',
      figure='reciprocal_rank',
    )
    rows.append(
      [
        f'`{name}`',
        methods_lib.DESCRIPTIONS[name],
        results_page.with_interval(rank, 'mean'),
        *compared.get(name, ('', '')),
        *methods_lib.costs(name, found),
      ]
    )
  return [
    f'{agreement["num_queries"]} training pairs as queries of all '
    f'{agreement["num_examples"]:,}: reciprocal rank of the query itself, '
    f'without damping; agreement with `{reference}`, damping {damping}; 95 % '
    f'intervals over queries, seed {agreement["seed"]}. Baselines without a '
    'basis stand below the methods.',
    '',
    *results_page.table(
      [
        *('method', 'of', 'reciprocal rank', 'Spearman', 'top 10 in common'),
        *methods_lib.COSTS,
      ],
      rows,
    ),
  ]


def proponents_table(found: recipes.Results) -> list[str]:
  """The strongest proponents of each query."""
  result = found['topk']['result']
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
