"""Wrong pairs in a translation corpus, and the pairs behind translations."""

import dataclasses

from launch.reproduce import methods as methods_lib, recipes, translation_tables
from launch.reproduce.methods import Method
from launch.running import command_line

_BAD = "corruption <> 'none'"
# Queries of the methods that solve for each of them.
_QUERIES = ('--query_split', 'train[:20]')


@dataclasses.dataclass(frozen=True)
class TranslationRecipe:
  """Indexes of a corpus that was given wrong pairs.

  Attributes:
    training: flags of the training.
    parameter_paths: regular expression of those that influence is taken over.
    projection_dim: of the bases.
    few: pairs to compare with.
    sample_size: of the curvature.
    num_products: with the curvature for each query, of conjugate gradients and
      of LiSSA.
    damping: of methods with the whole curvature, in units of eigenvalues.
    needs_data: whether a TFDS directory must be given.
  """

  training: recipes.Argv
  parameter_paths: str
  projection_dim: int
  few: int
  sample_size: int
  num_products: tuple[int, int]
  damping: str
  needs_data: bool

  @property
  def methods(self) -> list[Method]:
    paths = ('--parameter_paths', self.parameter_paths)
    sample = (*paths, '--sample_size', str(self.sample_size))
    dim = ('--projection_dim', str(self.projection_dim))
    fit = (
      *('fit-basis', '--num_trace_probes', '0'),
      *('--curvature', 'gauss_newton', *sample, *dim),
      *('--num_iterations', str(self.projection_dim * 3 // 2)),
    )
    random = ('random-basis', *dim)
    solved = ('query-basis', *_QUERIES, '--method')
    damped = ('--damping', self.damping, *sample)
    num_cg, num_lissa = (str(x) for x in self.num_products)
    layers = ('fit-basis', '--method', 'kronecker', *sample)
    return [
      Method('kronecker', (*layers, '--coordinates_per_layer', '256')),
      Method('arnoldi', fit),
      Method('random_gram', (*random, *sample)),
      Method('random', (*random, '--method', 'random', *paths)),
      Method('ekfac', (*solved, 'ekfac', *damped)),
      Method('cg', (*solved, 'cg', *damped, '--num_products', num_cg)),
      Method('lissa', (*solved, 'lissa', *damped, '--num_products', num_lissa)),
      Method('gradient', (*solved, 'gradient', *paths)),
      Method('tracin', (*solved, 'gradient', *paths), ('epochs=all',)),
    ]

  def steps(self, out: str, data_dir: str | None) -> list[recipes.Step]:
    """All that is run, in order; files go to `out`."""
    task = recipes.task_flags('seq2seq', f'{out}/model')
    task = (*task, '--task_arg', 'loss_reduction=mean')
    data = () if data_dir is None else ('--data_dir', data_dir)
    train = ('train-example', 'seq2seq', '--workdir', f'{out}/model', *data)
    topk = ('topk', *task, '--index', methods_lib.index_path(out, 'arnoldi'))
    return [
      recipes.Step('train', (*train, *self.training)),
      *methods_lib.index_steps('', self.methods, task, out),
      *self._detections(out),
      *self._comparisons(out, task),
      recipes.Step(
        'topk',
        (
          *(*topk, '--query_split', 'test[:10]', '--k', '3'),
          *('--normalization', 'gradient_norm'),
        ),
      ),
    ]

  def _detections(self, out: str) -> list[recipes.Step]:
    """Wrong pairs by self-influence, all of them and each kind."""

    def detection(name, method, bad, *flags):
      argv = ('evaluate', 'detection', '--bad', bad)
      place = ('--index', methods_lib.index_path(out, method))
      kept = ('--out', f'{out}/detection/{name.replace(" ", "_")}')
      return recipes.Step(f'detection {name}', (*argv, *place, *flags, *kept))

    few = ('--projection_dim', str(self.few))
    steps = [detection(name, name, _BAD) for name in methods_lib.DETECTORS]
    steps += [
      detection('few', 'arnoldi', _BAD, *few),
      detection(
        'few at random', 'arnoldi', _BAD, *few, '--pair_choice', 'random'
      ),
    ]
    for kind in translation_tables.KINDS:
      among = ('--where', f"corruption in ('none', '{kind}')")
      steps.append(detection(kind, 'arnoldi', f"corruption = '{kind}'", *among))
    return steps

  def _comparisons(self, out: str, task: recipes.Argv) -> list[recipes.Step]:
    """What each method finds for training pairs."""
    baselines = command_line.repeated(
      '--baseline', translation_tables.BASELINES
    )
    steps = []
    for method in self.methods:
      index = ('--index', methods_lib.index_path(out, method.name))
      has_baselines = method.name == translation_tables.WITH_BASELINES
      beside = baselines if has_baselines else ()
      own = (*index, *_QUERIES, '--relevant', 'id = query_id', *beside)
      kept = ('--out', f'{out}/retrieval/{method.name}')
      steps.append(
        recipes.Step(
          f'retrieval {method.name}',
          ('evaluate', 'retrieval', *task, *own, *kept),
        )
      )
    others = (
      methods_lib.index_path(out, method.name)
      for method in self.methods
      if method.name != 'cg'
    )
    agreement = (
      *('evaluate', 'agreement', *task, *_QUERIES),
      *(*command_line.repeated('--index', others), *baselines),
      *('--reference', methods_lib.index_path(out, 'cg')),
      *('--damping', self.damping, '--out', f'{out}/agreement'),
    )
    return [*steps, recipes.Step('agreement', agreement)]

  def tables(self, found: recipes.Results) -> list[str]:
    """Quality of the model, wrong pairs found, and top proponents."""
    return [
      f'* BLEU of the test split: {found["train"]["result"]["bleu"]:.1f}',
      f'* influence over the parameters `{self.parameter_paths}`',
      '',
      *translation_tables.detection_table(self.projection_dim, self.few, found),
      *translation_tables.methods_table(self.methods, self.damping, found),
      *translation_tables.proponents_table(found),
    ]


# Epochs and parameters were chosen with the wrong pairs of seed 0.
MULTI30K = TranslationRecipe(
  training=(
    *('--corrupt_pairs', '0.05', '--num_epochs', '6'),
    *('--seed', '1', '--data_seed', '1'),
  ),
  parameter_paths='Block_3/Dense',
  projection_dim=200,
  few=50,
  sample_size=1024,
  num_products=(20, 100),
  damping='0.01',
  needs_data=True,
)
