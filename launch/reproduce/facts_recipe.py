"""Planted facts: are the sentences found that a model knows a fact from?"""

from collections.abc import Sequence
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
# Of one index for each checkpoint.
_ENSEMBLE = 'kronecker_checkpoints'
_K = 10
_WHITENED = ('--directions', 'whitened')
# Long captions have large gradients, and would come first for every question.
_NORMALIZED = ('--normalization', 'gradient_norm')


@dataclasses.dataclass(frozen=True)
class FactsRecipe:
  """Indexes of a corpus with facts, and what they find for questions.

  Attributes:
    training: flags of the training.
    coordinates_per_layer: of the subspaces.
    many_coordinates: of larger ones.
    checkpoint_coordinates: of those of each checkpoint.
    checkpoints: epochs after which parameters were kept.
    sample_size: of the curvature.
    arnoldi_sample_size: the same of the eigenpairs, which take as many products
      with it as iterations.
    needs_data: whether a TFDS directory must be given.
  """

  training: recipes.Argv
  coordinates_per_layer: int
  many_coordinates: int
  checkpoint_coordinates: int
  checkpoints: tuple[str, ...]
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
    whitened = (*layers, *_WHITENED)
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

  @property
  def members(self) -> list[Method]:
    """Of the ensemble over checkpoints."""
    fit = ('fit-basis', '--method', 'kronecker', *_WHITENED)
    size = ('--coordinates_per_layer', str(self.checkpoint_coordinates))
    sample = ('--sample_size', str(self.sample_size))
    return [
      Method(
        f'checkpoint_{epoch}', (*fit, *sample, *size), (f'epochs={epoch}',)
      )
      for epoch in self.checkpoints
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
      *methods_lib.index_steps('', [*self.methods, *self.members], task, out),
      *(
        self._search(out, name, names, search)
        for name, names in self._searched.items()
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

  @property
  def _searched(self) -> dict[str, list[str]]:
    """Methods whose indexes are searched together, by name."""
    alone = {method.name: [method.name] for method in self.methods}
    together = [method.name for method in self.members]
    return alone | ({_ENSEMBLE: together} if together else {})

  def _search(
    self, out: str, name: str, names: Sequence[str], search: str
  ) -> recipes.Step:
    where, _ = _SEARCHES[search]
    flags: recipes.Argv = _NORMALIZED
    if name == _ENSEMBLE:  # Or one checkpoint would outweigh the others.
      flags = ('--normalization', 'cosine')
    if where:
      flags += ('--where', where)
    if name == _SHOWN:
      flags += command_line.repeated('--baseline', _BASELINES)
    indexes = (methods_lib.index_path(out, x) for x in names)
    step = f'{search} {name}'
    return recipes.Step(
      step,
      (
        *('evaluate', 'retrieval', '--index', *indexes, *_QUERIES),
        *('--relevant', 'fact = query_fact', '--k', str(_K), *flags),
        *('--out', f'{out}/retrieval/{step.replace(" ", "_")}'),
      ),
    )

  def tables(self, found: recipes.Results) -> list[str]:
    """What each method finds, with and without words in common."""
    train, about = (found[x]['result'] for x in ('train', f'all {_SHOWN}'))
    project = found[f'project {_SHOWN}']['result']
    rows = []
    for name in (*self._searched, *_BASELINES):
      cells = []
      for search in _SEARCHES:
        for figure in (f'recall_at_{_K}', 'reciprocal_rank'):
          cells.append(_figure(found, search, name, figure))
      description = methods_lib.DESCRIPTIONS[name]
      names = self._searched.get(name)
      costs = methods_lib.costs(name, found)
      if names:
        costs = methods_lib.ensemble_costs(names, found)
      rows.append([f'`{name}`', description, *cells, *costs])
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
      'common with it. Scores are divided by gradient norms, those of the '
      'ensemble by both sides of self-influence.',
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
  checkpoint_coordinates=1024,
  checkpoints=('1', '21', '40', '60'),
  sample_size=4096,
  arnoldi_sample_size=512,
  needs_data=True,
)
