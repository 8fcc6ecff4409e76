"""The flags of `influence demo` and `train-example`."""

import argparse

from launch.example_tasks.options import ExampleOptions
from launch.flags import fields


def add_demo(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--out', default='influence_demo', help='directory (default: %(default)s)'
  )


def add_reproduce(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'recipe',
    choices=(
      *('digits', 'mnist', 'multi30k', 'facts'),
      *('digits_ensemble', 'mnist_ensemble'),
    ),
    help=(
      'which dataset; facts are planted in a language model, ensembles are of '
      'five models'
    ),
  )
  parser.add_argument(
    '--out',
    required=True,
    help=(
      'directory for RESULTS.md and everything behind it; a second run there '
      'resumes'
    ),
  )
  parser.add_argument(
    '--data_dir',
    help='TFDS directory of the prepared dataset; digits make their own',
  )


def add_train_example(parser: fields.CommandParser) -> None:
  parser.add_argument(
    'example',
    choices=(
      *('mnist_cnn', 'digits_cnn', 'vit'),
      *('seq2seq', 'language_model', 'facts'),
    ),
    help='what to train',
  )
  parser.add_argument(
    '--workdir', required=True, help='where the model is stored'
  )
  parser.add(
    fields.Group(
      'options',
      ExampleOptions,
      {
        'flip_labels': fields.Flag(metavar='FRACTION'),
        'corrupt_pairs': fields.Flag(metavar='FRACTION'),
        'pretrained': fields.Flag(metavar='CHECKPOINT'),
      },
    )
  )
