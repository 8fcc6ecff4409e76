"""The task: what a user brings. A model, its loss and its corpus.

A task is made by a function in the user's own module, named by import path:
`my_team.cifar:make_task`. Workers import it by that name, so nothing is ever
pickled, and nothing has to be registered.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from influence_core import parameter_selection, types
from influence_core.curvature import products as curvature_products
from pipeline.corpora import corpus as corpus_lib, raw_batch


@dataclasses.dataclass(frozen=True)
class Task:
  """A model with its loss and training corpus.

  Attributes:
    name: for logs and reports.
    load_parameters: returns the pytree of trained parameters; see
      `checkpoints.load_arrays` for Orbax.
    per_example_loss: (params, [batch, ...] features) -> [batch] float losses.
      Pure, without dropout or other randomness, and without any exchange
      between examples.
    corpus: the training split.
    preprocess: a raw TFDS example (with its id under 'tfds_id') -> features, a
      pytree of numpy arrays whose shapes are the same for every example. Types
      of numbers are those of the first examples; others are converted where
      that loses nothing. An example of another form is left out as unusable.
    preprocess_batch: raw examples -> the features that `preprocess` gives for
      each, stacked, where that is faster for many at once; None to preprocess
      them one by one. Not with sequences. Its argument is a sequence, whose
      `column(name)` is a feature of all of them, stacked.
    sequences: paths of those features whose first axis has any length, such as
      ('tokens', 'mask'). They are padded with zeros to one of `buckets`; the
      loss must give padding no weight.
    buckets: lengths that sequences are padded to, each with a program of its
      own; empty for 16, 24, 32, 48, 64, 96, ... as far as needed. Longer
      sequences are left out as unusable. An index does not depend on them.
    example_id: feature of the raw examples that people know them by, such as a
      file name or a key; stands beside the id in rows and results.
    row_columns: a raw example -> scalars stored beside its projection, such as
      {'label': 3}: numbers, text (or UTF-8 bytes), dates and times, bool, None
      where a value is missing; None for no columns. Names and types are those
      of the first examples, see `row_columns`; a column that is None in all of
      them is one of text.
    loss_reduction: how the loss of an example reduces its parts, e.g. 'sum' or
      'mean' over tokens; 'none' where it has no parts. Part of what an index
      is checked against.
    parameter_paths: regular expressions of the parameters that influence is
      taken through; see `parameter_selection.select_parameters`.
    l2_weight: c, where training added c/2 * |theta|^2 to the mean loss.
    split_loss: the same loss as model outputs and a loss of outputs, for a
      basis of the Gauss-Newton matrix; None where that is not wanted.
    measurement: (params, [batch, ...] features) -> [batch] floats, what is
      asked of queries in place of the loss, such as the loss of the answer
      alone or a margin. As with a loss, less is better: give minus the
      log-odds. None for the loss.
    predict: (params, [batch, ...] features) -> arrays [batch] by name, what the
      model makes of examples, such as {'predicted': classes}; shown beside
      queries.
    retrain: (ids of training examples, seed) -> parameters of the same model
      trained on those alone; for `influence evaluate`, None where that is not
      wanted. Called from several threads.
    token_losses: (params, [batch, ...] features) -> [batch, tokens] losses that
      add up to the loss of each example, for the influence of single tokens;
      None where there are none.
    token_texts: a raw example -> the text of each of its tokens, in the order
      of `token_losses`, which may have padding after them.
    show: a raw example -> what people look at of it, by name: images (arrays of
      pixels, or the bytes of an encoded file), texts, numbers and short arrays;
      None for what the form of its features suggests, see `display`.
    version: change it to mark a change of model code or preprocessing that
      parameters and a few preprocessed examples do not show.
  """

  name: str
  load_parameters: Callable[[], types.Params]
  per_example_loss: types.PerExampleLoss
  corpus: corpus_lib.Corpus
  preprocess: Callable[[corpus_lib.RawExample], types.Features]
  preprocess_batch: Callable[[raw_batch.RawBatch], types.Features] | None = None
  sequences: Sequence[str] = ()
  buckets: Sequence[int] = ()
  example_id: str | None = None
  row_columns: Callable[[corpus_lib.RawExample], Mapping[str, Any]] | None = (
    None
  )
  loss_reduction: str = 'none'
  parameter_paths: Sequence[str] = ('.*',)
  l2_weight: float = 0.0
  split_loss: curvature_products.SplitLoss | None = None
  measurement: types.PerExampleLoss | None = None
  predict: (
    Callable[[types.Params, types.Features], Mapping[str, types.Array]] | None
  ) = None
  retrain: Callable[[frozenset[str], int], types.Params] | None = None
  token_losses: types.TokenLosses | None = None
  token_texts: Callable[[corpus_lib.RawExample], Sequence[str]] | None = None
  show: Callable[[corpus_lib.RawExample], Mapping[str, Any]] | None = None
  version: str = '1'

  def num_selected(self) -> int:
    """Number of selected parameters, from the checkpoint."""
    selected = parameter_selection.select_parameters(
      self.load_parameters(), self.parameter_paths
    )
    return parameter_selection.num_parameters(selected)
