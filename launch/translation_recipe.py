"""Wrong pairs in a translation corpus, and what translations rest on."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from launch import recipes, results_page

_BAD = "corruption <> 'none'"
_KINDS = ('wrong_pair', 'wrong_language', 'copy', 'truncated')
_SCORES = {
  'self_influence': 'self-influence',
  'gradient_norm': 'gradient norm',
  'loss': 'loss',
  'random': 'random',
}


@dataclasses.dataclass(frozen=True)
class TranslationRecipe:
  """An index of a corpus that was given wrong pairs.

  Attributes:
    training: flags of the training.
    parameter_paths: regular expression of those that influence is taken over.
    projection_dim: of the basis.
    few: pairs to compare with.
    sample_size: of the curvature.
    needs_data: whether a TFDS directory must be given.
  """

  training: recipes.Argv
  parameter_paths: str
  projection_dim: int
  few: int
  sample_size: int
  needs_data: bool

  def steps(self, out: str, data_dir: str | None) -> list[recipes.Step]:
    """All that is run, in order; files go to `out`."""
    task = recipes.task_flags('seq2seq', f'{out}/model')
    task = (*task, '--task_arg', 'loss_reduction=mean')
    data = () if data_dir is None else ('--data_dir', data_dir)
    index = f'{out}/index'
    fit = (
      *('fit-basis', '--num_trace_probes', '0'),
      *('--curvature', 'gauss_newton'),
      *('--parameter_paths', self.parameter_paths),
      *('--projection_dim', str(self.projection_dim)),
      *('--num_iterations', str(self.projection_dim * 3 // 2)),
      *('--sample_size', str(self.sample_size)),
    )
    train = ('train-example', 'seq2seq', '--workdir', f'{out}/model', *data)
    copies = ('--relevant', 'id = query_id', '--normalization', 'cosine')
    return [
      recipes.Step('train', (*train, *self.training)),
      *recipes.index_steps(
        'pairs', fit, task, basis=f'{out}/basis', index=index
      ),
      *self._detections(out, index),
      recipes.Step(
        'retrieval',
        (
          *('evaluate', 'retrieval', *task, '--index', index, *copies),
          *('--query_split', 'train[:100]', '--out', f'{out}/retrieval'),
        ),
      ),
      recipes.Step(
        'topk',
        (
          *('topk', *task, '--index', index, '--query_split', 'test[:10]'),
          *('--k', '3', '--normalization', 'gradient_norm'),
        ),
      ),
    ]

  def _detections(self, out: str, index: str) -> list[recipes.Step]:
    detection = ('evaluate', 'detection', '--index', index, '--bad')
    return [
      recipes.Step(
        'detection',
        (*detection, _BAD, '--out', f'{out}/detection'),
      ),
      recipes.Step(
        'detection few',
        (*detection, _BAD, '--projection_dim', str(self.few)),
      ),
      *(
        recipes.Step(
          f'detection {kind}',
          (
            *(*detection, f"corruption = '{kind}'"),
            *('--where', f"corruption in ('none', '{kind}')"),
            *('--out', f'{out}/detection_{kind}'),
          ),
        )
        for kind in _KINDS
      ),
    ]

  def tables(self, found: recipes.Results) -> list[str]:
    """Quality of the model, wrong pairs found, and top proponents."""
    bleu = found['train']['result']['bleu']
    rank = results_page.row_of(
      found['retrieval']['result']['figures'], 'figure', 'reciprocal_rank'
    )
    fit, project = (
      found[f'{x} pairs']['seconds'] for x in ('basis', 'project')
    )
    return [
      f'* BLEU of the test split: {bleu:.1f}',
      f'* fitting the basis {fit:.0f} s, projecting '
      f'{found["detection"]["result"]["num_examples"]:,} pairs '
      f'{project:.0f} s; influence over the parameters '
      f'`{self.parameter_paths}`',
      '* reciprocal rank of the query itself among all pairs, '
      f'{found["retrieval"]["result"]["num_queries"]} training pairs as '
      'queries, cosine: '
      f'{results_page.with_interval(rank, "mean")}',
      '',
      *self._detection_table(found),
      *_proponents_table(found['topk']['result']),
    ]

  def _detection_table(self, found: recipes.Results) -> list[str]:
    about = found['detection']['result']
    rows = _detection_rows('all', about, _SCORES)
    few = {'self_influence': f'self-influence, {self.few} pairs'}
    rows[1:1] = _detection_rows('all', found['detection few']['result'], few)
    for kind in _KINDS:
      result = found[f'detection {kind}']['result']
      rows += _detection_rows(kind, result, _SCORES)
    return [
      f'Wrong pairs, {about["num_bad"]:,} of {about["num_examples"]:,}, found '
      f'with {self.projection_dim} eigenpairs; 95 % interval of '
      f'{about["num_bootstrap"]} resamplings, seed {about["seed"]}. Each kind '
      'is ranked among the right pairs.',
      '',
      *results_page.table(
        ['kind', 'pairs', 'ranked by', 'AUC', 'average precision'], rows
      ),
    ]


def _detection_rows(
  kind: str, result: Mapping[str, Any], scores: Mapping[str, str]
) -> list[list[str]]:
  rows = []
  for score, shown in scores.items():
    row = results_page.row_of(result['scores'], 'score', score)
    figures = (
      results_page.with_interval(row, metric, f'{metric}_')
      for metric in ('auc', 'average_precision')
    )
    count = f'{result["num_bad"]:,}'
    rows.append([kind.replace('_', ' '), count, shown, *figures])
  return rows


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


# Epochs and parameters were chosen with the wrong pairs of seed 0.
MULTI30K = TranslationRecipe(
  training=('--corrupt_pairs', '0.05', '--num_epochs', '6', '--seed', '1'),
  parameter_paths='Block_3/Dense',
  projection_dim=200,
  few=50,
  sample_size=1024,
  needs_data=True,
)
