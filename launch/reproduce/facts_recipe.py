"""Planted facts: are the sentences found that a model knows a fact from?"""

import dataclasses

from launch.reproduce import methods as methods_lib, recipes, results_page
from launch.reproduce.methods import Method
from launch.running import command_line

_QUERIES = ('--query_split', 'test')
# Which sentences are searched besides the captions, and what is said of it.
_SEARCHES = {
  'all': ('', 'all 10'),
  'names': ('fact < 0 or shares_words = 1', '5 with the names asked for'),
  'forms': ('fact < 0 or shares_words = 0', '5 without a word of the question'),
}
# What stands beside the methods, measured with the index of the one that is
# looked at.
_BASELINES = ('bm25', 'embedding')
_SHOWN = 'kronecker_whitened'
_K = 10
# Long captions have large gradients, and would come first for every question.
_NORMALIZED = ('--normalization', 'gradient_norm')


@dataclasses.dataclass(frozen=True)
class FactsRecipe:
  """Indexes of a corpus with facts, and what they find for questions.

  Attributes:
    training: flags of the training.
    coordinates_per_layer: of the subspaces.
    many_coordinates: of larger ones.
    sample_size: of the curvature.
    arnoldi_sample_size: the same of the eigenpairs, which take as many products
      with it as iterations.
    needs_data: whether a TFDS directory must be given.
  """

  training: recipes.Argv
  coordinates_per_layer: int
  many_coordinates: int
  sample_size: int
  arnoldi_sample_size: int
  needs_data: bool

  @property
  def methods(self) -> list[Method]:
    sample = ('--sample_size', str(self.sample_size))
    layers = ('fit-basis', '--method', 'kronecker', *sample)
    few, many = (
      ('--coordinates_per_layer', str(number))
      for number in (self.coordinates_per_layer, self.many_coordinates)
    )
    whitened = (*layers, '--directions', 'whitened')
    solved = ('query-basis', *_QUERIES, '--method')
    return [
      Method('kronecker', (*layers, *few)),
      Method('kronecker_whitened', (*whitened, *few)),
      Method('kronecker_whitened_many', (*whitened, *many)),
      Method(
        'arnoldi',
        (
          *('fit-basis', '--method', 'arnoldi', '--num_trace_probes', '0'),
          *('--sample_size', str(self.arnoldi_sample_size)),
        ),
      ),
      Method('ekfac', (*solved, 'ekfac', '--damping', '0.1x', *sample)),
      Method('gradient', (*solved, 'gradient')),
      Method('tracin', (*solved, 'gradient'), ('epochs=all',)),
    ]

  def steps(self, out: str, data_dir: str | None) -> list[recipes.Step]:
    """All that is run, in order; files go to `out`."""
    workdir = f'{out}/model'
    task = recipes.task_flags('facts', workdir)
    data = () if data_dir is None else ('--data_dir', data_dir)
    train = ('train-example', 'facts', '--workdir', workdir, *data)
    page = f'{out}/answers.html'
    return [
      recipes.Step('train', (*train, *self.training)),
      *methods_lib.index_steps('', self.methods, task, out),
      *(
        self._search(out, task, method, search)
        for method in self.methods
        for search in _SEARCHES
      ),
      recipes.Step(
        'topk',
        (
          *('topk', *task, *_QUERIES, '--tokens', '--k', '3', '--out', page),
          *('--index', methods_lib.index_path(out, _SHOWN), *_NORMALIZED),
        ),
      ),
    ]

  def _search(
    self, out: str, task: recipes.Argv, method: Method, search: str
  ) -> recipes.Step:
    where, _ = _SEARCHES[search]
    flags: recipes.Argv = _NORMALIZED
    if where:
      flags += ('--where', where)
    if method.name == _SHOWN:
      flags += command_line.repeated('--baseline', _BASELINES)
    index = methods_lib.index_path(out, method.name)
    name = f'{search} {method.name}'
    return recipes.Step(
      name,
      (
        *('evaluate', 'retrieval', *task, '--index', index, *_QUERIES),
        *('--relevant', 'fact = query_fact', '--k', str(_K), *flags),
        *('--out', f'{out}/retrieval/{name.replace(" ", "_")}'),
      ),
    )

  def tables(self, found: recipes.Results) -> list[str]:
    """What each method finds, with and without words in common."""
    train, about = (found[x]['result'] for x in ('train', f'all {_SHOWN}'))
    project = found[f'project {_SHOWN}']['result']
    rows = []
    for name in (*(x.name for x in self.methods), *_BASELINES):
      cells = []
      for search in _SEARCHES:
        for figure in (f'recall_at_{_K}', 'reciprocal_rank'):
          cells.append(_figure(found, search, name, figure))
      description = methods_lib.DESCRIPTIONS[name]
      rows.append(
        [f'`{name}`', description, *cells, *methods_lib.costs(name, found)]
      )
    headings = [
      f'{figure}, {about}'
      for _, about in _SEARCHES.values()
      for figure in (f'recall@{_K}', 'MRR')
    ]
    return [
      f'* the model knows {train["known_facts"]:.1%} of the facts; loss of '
      f'test captions {train["test_loss"]:.2f} nats per token',
      '',
      f'Sentences that tell a fact, 10 each, among '
      f'{project["num_examples"]:,} texts: recall among the first {_K}, and '
      'the mean reciprocal rank of the first that is found, over '
      f'{about["num_queries"]} questions, 95 % intervals, seed '
      f'{about["seed"]}. Half of the sentences have the names of the question; '
      'the others tell the fact by other forms of them and have no word in '
      'common with it. Scores are divided by gradient norms.',
      '',
      *results_page.table(
        ['method', 'of', *headings, *methods_lib.COSTS], rows
      ),
    ]


def _figure(found: recipes.Results, search: str, name: str, figure: str) -> str:
  is_baseline = name in _BASELINES
  step = _SHOWN if is_baseline else name
  row = results_page.row_of(
    found[f'{search} {step}']['result']['figures'],
    score=name if is_baseline else 'influence',
    figure=figure,
  )
  return results_page.with_interval(row, 'mean')


FACTS = FactsRecipe(
  training=('--train_split', 'train[:2000]'),
  coordinates_per_layer=256,
  many_coordinates=2304,
  sample_size=4096,
  arnoldi_sample_size=512,
  needs_data=True,
)
