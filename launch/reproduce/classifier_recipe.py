"""Every method and metric on a classifier that was given wrong labels."""

from collections.abc import Sequence
import dataclasses

from launch.reproduce import (
  classifier_studies,
  classifier_tables,
  methods as methods_lib,
  recipes,
)
from launch.reproduce.methods import Method
from launch.running import command_line

# Damping is chosen by other queries than those that figures are of.
_QUERIES = ('--query_split', 'test[:50]')
_VALIDATION_QUERIES = ('--query_split', 'test[50:100]')
_BOTH = ('--query_split', 'test[:100]')

_BAD = 'label <> true_label'


@dataclasses.dataclass(frozen=True)
class ClassifierRecipe:
  """All methods on a classifier that was given wrong labels.

  Attributes:
    example: to train.
    training: flags of a training that memorises its labels.
    underfitted: flags of one that does not.
    wide: dimension of the larger bases.
    coordinates: of each layer, few and many.
    sample_size: of every curvature.
    num_products: with the curvature for each query, of conjugate gradients and
      of LiSSA.
    num_subsets: parts of the corpus to train on.
    num_repeats: trainings on each part.
    dampings: tried, in units of eigenvalues.
    small: flags of a training whose explicit matrix fits memory; None for no
      such comparison.
    knobs: NAME=VALUE,... of options to vary; empty for none.
    needs_data: whether a TFDS directory must be given.
  """

  example: str
  training: recipes.Argv
  underfitted: recipes.Argv
  wide: int
  coordinates: tuple[int, int]
  sample_size: int
  num_products: tuple[int, int]
  num_subsets: int
  num_repeats: int
  dampings: recipes.Argv
  small: recipes.Argv | None
  knobs: recipes.Argv
  needs_data: bool

  @property
  def methods(self) -> list[Method]:
    sample = ('--sample_size', str(self.sample_size))
    arnoldi = ('fit-basis', '--num_trace_probes', '0', *sample)
    gram = ('random-basis', *sample)
    wide = ('--projection_dim', str(self.wide))
    steps = ('--num_iterations', str(2 * self.wide))
    gauss_newton = ('--curvature', 'gauss_newton')
    solved = ('query-basis', *_QUERIES, '--method')
    damped = ('--damping', '0.01', *sample, '--num_products')
    num_cg, num_lissa = (str(x) for x in self.num_products)
    layers = (
      *('fit-basis', '--method', 'kronecker', *sample),
      '--coordinates_per_layer',
    )
    few, many = (str(x) for x in self.coordinates)
    return [
      Method('kronecker', (*layers, many)),
      Method('kronecker_few', (*layers, few)),
      Method('arnoldi', arnoldi),
      Method('arnoldi_wide', (*arnoldi, *wide, *steps, *gauss_newton)),
      Method('random_gram', gram),
      Method('random_gram_wide', (*gram, *wide)),
      Method('random', ('random-basis', '--method', 'random')),
      Method('ekfac', (*solved, 'ekfac', *sample)),
      Method('cg', (*solved, 'cg', *damped, num_cg)),
      Method('lissa', (*solved, 'lissa', *damped, num_lissa)),
      Method('gradient', (*solved, 'gradient')),
      Method('tracin', (*solved, 'gradient'), ('epochs=all',)),
    ]

  def steps(self, out: str, data_dir: str | None) -> list[recipes.Step]:
    """All that is run, in order.

    Args:
      out: directory.
      data_dir: TFDS directory; None where the example makes its data.
    """
    detectors = [x for x in self.methods if x.name in methods_lib.DETECTORS]
    return [
      *self._trainings(out, data_dir),
      *self._indexes(out, 'model', self.methods),
      *self._indexes(out, 'underfitted', detectors),
      *self._datamodelling_scores(out),
      *self._detections(out, detectors),
      *self._uses(out),
      *self._studies(out),
    ]

  def tables(self, found: recipes.Results) -> list[str]:
    lines = classifier_tables.render(self.methods, self.dampings, found)
    if self.small is not None:
      lines += classifier_studies.agreement_table(found)
    if self.knobs:
      lines += classifier_studies.sensitivity_table(found)
    return lines

  def _trainings(self, out: str, data_dir: str | None) -> list[recipes.Step]:
    data = () if data_dir is None else ('--data_dir', data_dir)
    train = ('train-example', self.example, *data, '--workdir')
    return [
      recipes.Step('train model', (*train, f'{out}/model', *self.training)),
      recipes.Step(
        'train underfitted', (*train, f'{out}/underfitted', *self.underfitted)
      ),
    ]

  @property
  def _trainings_of_parts(self) -> recipes.Argv:
    return (
      *('--num_subsets', str(self.num_subsets)),
      *('--num_repeats', str(self.num_repeats)),
    )

  def _task(self, out: str, model: str) -> recipes.Argv:
    return recipes.task_flags(self.example, f'{out}/{model}')

  def _indexes(
    self, out: str, model: str, methods: Sequence[Method]
  ) -> list[recipes.Step]:
    return methods_lib.index_steps(
      f'{model} ', methods, self._task(out, model), f'{out}/{model}'
    )

  def _datamodelling_scores(self, out: str) -> list[recipes.Step]:
    lds = (
      *('evaluate', 'lds', *self._task(out, 'model'), '--out', f'{out}/lds'),
      *self._trainings_of_parts,
    )
    index = {
      x.name: methods_lib.index_path(f'{out}/model', x.name)
      for x in self.methods
    }
    every = command_line.repeated('--index', index.values())
    arnoldi = (*lds, *_QUERIES, '--index', index['arnoldi'])
    gradient = (*lds, *_QUERIES, '--index', index['gradient'])
    half = ('--projection_dim', '25')
    baselines = (
      *command_line.repeated('--baseline', classifier_tables.BASELINES),
      *('--against', index[classifier_tables.COMPARED_WITH]),
    )
    steps = [
      # All later ones find the losses of these queries.
      recipes.Step('lds both', (*lds, *_BOTH, '--index', index['arnoldi'])),
      recipes.Step('lds', (*lds, *_QUERIES, *every, *baselines)),
      recipes.Step('lds half', (*arnoldi, *half)),
      recipes.Step(
        'lds half at random', (*arnoldi, *half, '--pair_choice', 'random')
      ),
      recipes.Step(
        'lds cosine', (*gradient, '--normalization', 'gradient_norm')
      ),
    ]
    for names, dampings in classifier_tables.damped(self.dampings):
      damped = command_line.repeated('--index', (index[x] for x in names))
      for damping in dampings:
        flags = (*damped, '--damping', damping)
        steps += [
          recipes.Step(
            f'lds validation {damping}', (*lds, *_VALIDATION_QUERIES, *flags)
          ),
          recipes.Step(f'lds damped {damping}', (*lds, *_QUERIES, *flags)),
        ]
    return steps

  def _detections(
    self, out: str, methods: Sequence[Method]
  ) -> list[recipes.Step]:
    return [
      recipes.Step(
        f'detection {model} {method.name}',
        (
          *('evaluate', 'detection', '--bad', _BAD),
          '--index',
          methods_lib.index_path(f'{out}/{model}', method.name),
          *('--out', f'{out}/detection/{model}_{method.name}'),
        ),
      )
      for model in classifier_tables.MODELS
      for method in methods
    ]

  def _studies(self, out: str) -> list[recipes.Step]:
    steps = []
    if self.small is not None:
      sample = ('--sample_size', str(self.sample_size))
      steps += classifier_studies.agreement_steps(
        out, self.example, self.small, sample, self.wide
      )
    if self.knobs:
      measured = (
        *(*self._task(out, 'model'), *_QUERIES, '--out', f'{out}/lds'),
        *('--bad', _BAD, *self._trainings_of_parts),
      )
      steps += classifier_studies.sensitivity_steps(
        measured, self.wide, self.knobs
      )
    return steps

  def _uses(self, out: str) -> list[recipes.Step]:
    """Training without proponents, and what retrieval finds."""
    task = self._task(out, 'model')
    index = methods_lib.index_path(f'{out}/model', 'arnoldi')
    where = (*task, '--index', index, '--baseline', 'embedding')
    retrieval = ('evaluate', 'retrieval', *where, '--relevant')
    copies = ('--query_split', 'train[:100]', '--normalization', 'cosine')
    relabelled = 'label <> true_label and true_label = query_label'
    return [
      recipes.Step(
        'counterfactual',
        (
          *('evaluate', 'counterfactual', *where, '--k', '50'),
          *('--query_split', 'test[:10]', '--out', f'{out}/lds'),
        ),
      ),
      *(
        recipes.Step(
          f'retrieval {name}',
          (*retrieval, relevant, *flags, '--out', f'{out}/retrieval_{name}'),
        )
        for name, relevant, flags in (
          ('class', 'label = query_label', _QUERIES),
          ('duplicate', 'id = query_id', copies),
          ('relabelled', relabelled, (*_QUERIES, '--kind', 'opponents')),
        )
      ),
    ]


_DAMPINGS = ('0.0001', '0.001', '0.01', '0.1')
DIGITS = ClassifierRecipe(
  'digits_cnn',
  training=('--flip_labels', '0.1'),
  underfitted=('--flip_labels', '0.1', '--num_epochs', '5'),
  wide=400,
  coordinates=(100, 400),
  sample_size=1497,
  num_products=(50, 200),
  num_subsets=50,
  num_repeats=2,
  dampings=_DAMPINGS,
  small=('--flip_labels', '0.1', '--size', 'mini'),
  knobs=(
    'projection_dim=5,10,25,50',
    'num_iterations=60,100,200',
    'sample_size=128,512,1497',
    'curvature=hessian,gauss_newton',
    'negative_eigenvalues=drop,abs,clip',
    'damping=0,0.001,0.01,0.1,1',
    'normalization=none,gradient_norm,cosine',
    'parameter_paths=.*,Conv,Dense,Dense_1',
  ),
  needs_data=False,
)
# Few examples: each half is trained on, and must be memorised.
_SMALL_MNIST = ('--flip_labels', '0.1', '--train_split', 'train[:1500]')
MNIST = ClassifierRecipe(
  'mnist_cnn',
  training=(*_SMALL_MNIST, '--num_epochs', '40'),
  underfitted=(*_SMALL_MNIST, '--num_epochs', '5'),
  wide=200,
  coordinates=(100, 350),
  # All of them: the curvature inside must know what was memorised.
  sample_size=1500,
  num_products=(10, 50),
  num_subsets=50,
  num_repeats=2,
  dampings=_DAMPINGS,
  small=None,
  knobs=(),
  needs_data=True,
)
