"""The flags of `influence demo` and `train-example`."""

import argparse


def add_demo(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--out', default='influence_demo', help='directory (default: %(default)s)'
  )


def add_reproduce(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'recipe', choices=('digits', 'mnist', 'multi30k'), help='which dataset'
  )
  parser.add_argument(
    '--out',
    required=True,
    help=(
      'directory for RESULTS.md and all that it rests on; a second run with '
      'the same one goes on'
    ),
  )
  parser.add_argument(
    '--data_dir',
    help='TFDS directory of the prepared dataset; digits makes its own',
  )


def add_train_example(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'example',
    choices=('mnist_cnn', 'digits_cnn', 'vit', 'seq2seq', 'language_model'),
    help='what to train',
  )
  parser.add_argument(
    '--workdir', required=True, help='where the model is stored'
  )
  parser.add_argument(
    '--data_dir',
    help='TFDS directory of the prepared dataset; digits_cnn makes its own',
  )
  parser.add_argument(
    '--dataset', help='another TFDS dataset of the same kind (default: its own)'
  )
  parser.add_argument(
    '--train_split',
    default='train',
    help="TFDS split to train on, e.g. 'train[:6000]' (default: %(default)s)",
  )
  parser.add_argument(
    '--size',
    help=(
      'of the model: Ti/4, S/16, L/32, ... of vit; mini, small, base of texts; '
      'mini, base of digits_cnn'
    ),
  )
  parser.add_argument(
    '--flip_labels',
    type=float,
    default=0.0,
    metavar='FRACTION',
    help='training labels to make wrong (default: %(default)s)',
  )
  parser.add_argument(
    '--corrupt_pairs',
    type=float,
    default=0.0,
    metavar='FRACTION',
    help='training pairs of sentences to make wrong (default: %(default)s)',
  )
  parser.add_argument(
    '--pretrained',
    metavar='CHECKPOINT',
    help='Orbax checkpoint to start from; layers of other shapes start anew',
  )
  parser.add_argument(
    '--num_epochs', type=int, help='default: what suits the example'
  )
  parser.add_argument('--seed', type=int, default=0)
