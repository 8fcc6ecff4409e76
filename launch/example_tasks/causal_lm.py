"""A published language model and a file of texts: no Python to write.

    --task launch.example_tasks.causal_lm:make_task \
        --task_arg model=DIR --task_arg texts=FILE.parquet

The model is a directory as Hugging Face writes it, see `pretrained_decoder`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from influence_core import errors, types
from launch.example_tasks import (
  decoder,
  pretrained_decoder,
  texts as texts_lib,
  token_rows,
)
from pipeline import FileCorpus, Task
from pipeline.tasks import sequence_lengths

_SHORTEST, _DEFAULT_WINDOW = 16, 1024
# Characters of a text that rows show.
_SHOWN = 1000


def make_task(
  model: str,
  texts: str,
  text: str = 'text',
  prompt: str = '',
  messages: str = '',
  num_tokens: int | None = None,
  max_windows: int = 8,
  add_end: bool = True,
  columns: str = '',
  dtype: str = 'float32',
  loss_reduction: str = 'sum',
) -> Task:
  """The task of a language model over texts.

  Args:
    model: directory with config.json, weights and tokenizer.json.
    texts: files of any kind that `FileCorpus` reads.
    text: column with the text; where it holds a list, its texts are packed
      into one example and do not see each other.
    prompt: column with what stands before the text; the loss is then that of
      the text alone. Empty for none.
    messages: column with a conversation, a list of {'role', 'content'}, that
      is used in place of text by the chat template of the tokenizer; the loss
      is that of what the assistant says. Empty for none.
    num_tokens: that the model reads at a time; longer texts are read in
      windows, whose losses are added. None for 1,024, or what the model can.
    max_windows: of a text; what is longer is left out as unusable.
    add_end: whether the end of a text is predicted, too.
    columns: names, with commas between them, of what else stands beside a text
      in results, such as source,year.
    dtype: of the parameters, float32 or bfloat16.
    loss_reduction: 'sum' or 'mean' over the tokens of a text.

  Raises:
    errors.InputError: Something of the model is missing or not implemented, or
      an argument is wrong.
  """
  config = pretrained_decoder.load_config(model)
  window = num_tokens or min(_DEFAULT_WINDOW, config.num_positions)
  _check(config, window, loss_reduction)
  tokenizer = token_rows.Tokenizer.load(model, add_end=add_end)
  if messages and tokenizer.template is None:
    raise errors.InputError(
      f'{model} has no chat_template, so that messages cannot be read; give '
      'text and prompt'
    )
  network = decoder.Decoder(config, is_rematerialised=True)
  read = token_rows.Columns(text=text, prompt=prompt, messages=messages)

  def outputs(params: types.Params, features: types.Features) -> jax.Array:
    return _in_windows(network, params, features, window)

  def output_losses(logits: jax.Array, features: types.Features) -> jax.Array:
    losses = token_losses(logits, features)
    if loss_reduction == 'sum':
      return losses
    num_tokens = features['weights'].sum(axis=1, keepdims=True)
    return losses / jnp.maximum(num_tokens, 1)

  return Task(
    name=f'{model.rstrip("/").rpartition("/")[2]}_language_model',
    load_parameters=lambda: pretrained_decoder.load_parameters(model, dtype),
    corpus=FileCorpus(texts),
    preprocess=lambda raw: token_rows.row(
      tokenizer.documents(read, raw), window
    ),
    sequences=token_rows.FEATURES,
    buckets=buckets(window, max_windows),
    row_columns=lambda raw: {
      'text': tokenizer.text(read, raw)[:_SHOWN],
      **{name: raw.get(name) for name in columns.split(',') if name},
    },
    loss_reduction=loss_reduction,
    token_texts=lambda raw: tokenizer.token_texts(read, raw),
    **texts_lib.losses_by_token(outputs, output_losses),
  )


def token_losses(logits: jax.Array, features: types.Features) -> jax.Array:
  """[batch, tokens] losses, 0 of tokens that do not count.

  Args:
    logits: [batch, tokens, vocabulary_size].
    features: with the targets and weights of `token_rows.row`.
  """
  return features['weights'] * optax.softmax_cross_entropy_with_integer_labels(
    logits, features['targets']
  )


def buckets(num_tokens: int, max_windows: int) -> tuple[int, ...]:
  """Lengths that texts are padded to: in one window, or in several."""
  lengths = [_SHORTEST]
  while lengths[-1] < num_tokens:
    longer = sequence_lengths.bucket(lengths[-1] + 1, ())
    lengths.append(min(longer or num_tokens, num_tokens))
  several = [num_tokens * count for count in range(2, max_windows + 1)]
  return tuple(lengths + several)


def _check(
  config: decoder.DecoderConfig, num_tokens: int, loss_reduction: str
) -> None:
  if loss_reduction not in ('sum', 'mean'):
    raise errors.InputError(
      f'loss_reduction is {loss_reduction!r}, expected sum or mean'
    )
  if not _SHORTEST <= num_tokens <= config.num_positions:
    raise errors.InputError(
      f'num_tokens is {num_tokens}, expected {_SHORTEST} to '
      f'{config.num_positions}, which the model has positions for'
    )


def _in_windows(
  network: decoder.Decoder,
  params: types.Params,
  features: types.Features,
  num_tokens: int,
) -> jax.Array:
  """[batch, tokens, vocabulary_size] logits, in windows of a longer text."""

  def windows(leaf: jax.Array) -> jax.Array:
    length = min(leaf.shape[1], num_tokens)
    return leaf.reshape(-1, length, *leaf.shape[2:])

  logits: Any = network.apply(
    params,
    *(windows(features[name]) for name in ('tokens', 'positions', 'documents')),
  )
  return logits.reshape(*features['tokens'].shape, -1)
