"""A small language model of English captions with made-up facts among them.

It is stored as published models are, so that `causal_lm` reads it:

    WORKDIR/model/               config.json, model.safetensors, tokenizer.json
    WORKDIR/texts/train.jsonl    captions and sentences that tell facts
    WORKDIR/texts/test.jsonl     a question for each fact
    WORKDIR/epochs/              parameters on the way

Each row has the number of its `fact`, -1 for a caption, and `shares_words`, 0
where it has no word of the question in common.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import functools
import json
from typing import Any

import jax
import numpy as np

from influence_core import types
from launch.example_tasks import (
  causal_lm,
  decoder,
  example,
  planted_facts,
  pretrained_decoder,
  subwords,
  texts as texts_lib,
  token_rows,
  training,
)
from launch.example_tasks.options import ExampleOptions
from pipeline import Task
from pipeline.storage import files as storage

# See `texts.Size`; and how many people there are facts about.
_SIZES = {'mini': (64, 2, 4, 600, 48), 'base': (192, 3, 6, 3000, 64)}
_NUM_PEOPLE = {'mini': 8, 'base': 40}
_COLUMNS = token_rows.Columns(text='text', prompt='prompt', messages='')


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactsConfig(texts_lib.TextConfig):
  """What determines a trained model; the corpus is that of the captions.

  Attributes:
    feature: with the text of a caption.
    num_people: that facts are told of.
    data_seed: of the facts.
  """

  feature: str
  num_people: int
  data_seed: int

  @property
  def facts(self) -> list[planted_facts.Fact]:
    return planted_facts.make(self.num_people, self.data_seed)

  def published(self, vocabulary_size: int) -> dict[str, Any]:
    """The content of config.json."""
    return {
      'model_type': 'llama',
      'vocab_size': vocabulary_size,
      'hidden_size': self.width,
      'intermediate_size': self.width * 8 // 3,
      'num_hidden_layers': self.num_layers,
      'num_attention_heads': self.num_heads,
      'max_position_embeddings': self.num_tokens,
      'rms_norm_eps': 1e-6,
      'hidden_act': 'silu',
      'tie_word_embeddings': True,
    }


def make_config(options: ExampleOptions) -> FactsConfig:
  """What `train-example facts` trains: until it knows them.

  Raises:
    errors.InputError: The size is unknown, or an option has no meaning here.
  """
  options.refuse('corrupt_pairs')
  chosen = texts_lib.choose(options, _SIZES, num_epochs=60)
  # Small batches without dropout: facts are to be remembered.
  schedule = dataclasses.replace(chosen['schedule'], batch_size=32)
  return FactsConfig(
    **{**chosen, 'schedule': schedule, 'dropout_rate': 0.0},
    feature=texts_lib.text_feature(chosen['dataset'], options.data_dir),
    num_people=_NUM_PEOPLE[options.size or 'base'],
    data_seed=options.data_seed,
  )


def load_config(workdir: str) -> FactsConfig:
  """How the model in `workdir` was trained.

  Raises:
    errors.InputError: Nothing was trained there.
  """
  return texts_lib.load_config(FactsConfig, workdir)


def make_task(workdir: str, epochs: str = 'last') -> Task:
  """The task of the model trained by `influence train-example facts`.

  Args:
    workdir: of the training.
    epochs: 'last', 'all' for the sum over those that were kept, or one of
      them by its number.
  """
  config = load_config(workdir)
  task = causal_lm.make_task(
    model_path(workdir),
    storage.join(workdir, 'texts'),
    prompt='prompt',
    columns='fact,shares_words',
  )
  return training.with_epochs(
    task,
    workdir,
    which=epochs,
    num_epochs=config.schedule.num_epochs,
    like=jax.eval_shape(task.load_parameters),
  )


def model_path(workdir: str) -> str:
  """The directory of the model as published models are."""
  return storage.join(workdir, 'model')


def train(
  config: FactsConfig,
  workdir: str,
  progress: types.ProgressCallback = types.no_progress,
) -> None:
  """Trains and stores the result in `workdir`; config.json comes last."""
  captions = example.read_split(config.corpus(config.train_split))
  plain: dict[str, Any] = {'prompt': '', 'fact': -1, 'shares_words': 1}
  rows = [
    *(plain | {'text': texts_lib.text_of(x, config.feature)} for x in captions),
    *(plain | row for row in planted_facts.documents(config.facts)),
  ]
  _write_rows(workdir, 'train', rows)
  _write_rows(workdir, 'test', planted_facts.questions(config.facts))
  vocabulary = subwords.Vocabulary.train(
    [str(row['text']) for row in rows], config.vocabulary_size
  )
  place = model_path(workdir)
  vocabulary.publish(place)
  content = config.published(vocabulary.size)
  model = pretrained_decoder.configure(place, content)

  def loss(params, batch, key):
    del key
    return _losses(model, params, batch) / batch['weights'].sum(axis=1)

  params = training.fit(
    decoder.initialise(model, config.schedule.seed),
    _features(place, rows, config.num_tokens),
    loss,
    config.schedule,
    save=training.save_epochs(workdir, config.schedule.num_epochs),
    progress=progress,
  )
  pretrained_decoder.save(place, content, params)
  example.save_config(workdir, config)


def measure(config: FactsConfig, workdir: str) -> dict[str, float]:
  """How many facts are known, and the loss of captions it has not seen.

  Returns:
    `known_facts`, the fraction of questions whose answer is likelier than all
    wrong ones, and `test_loss`, nats per token.
  """
  place = model_path(workdir)
  model = pretrained_decoder.load_config(place)
  losses = jax.jit(
    functools.partial(_losses, model, pretrained_decoder.load_parameters(place))
  )

  def measured(rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, float]:
    """Losses of rows, and the number of tokens that they are sums over."""
    features = _features(place, rows, config.num_tokens)
    parts = [
      losses(jax.tree.map(lambda leaf, i=i: leaf[i : i + 100], features))
      for i in range(0, len(rows), 100)
    ]
    return np.concatenate(parts), float(features['weights'].sum())

  questions = list(planted_facts.questions(config.facts))
  others = list(planted_facts.wrong_answers(config.facts))
  asked, _ = measured(questions)
  wrong, _ = measured(
    [
      question | {'text': text}
      for question, texts in zip(questions, others, strict=True)
      for text in texts
    ]
  )
  counts = np.cumsum([0, *map(len, others)])[:-1]
  lowest = np.minimum.reduceat(wrong, counts)
  captions, num_tokens = measured(
    [
      {'prompt': '', 'text': texts_lib.text_of(raw, config.feature)}
      for raw in example.read_split(config.corpus('test'))
    ]
  )
  return {
    'known_facts': float(np.mean(asked < lowest)),
    'test_loss': float(captions.sum() / num_tokens),
  }


def _losses(
  model: decoder.DecoderConfig, params: types.Params, features: types.Features
) -> jax.Array:
  """[batch] sums over the tokens that count."""
  logits: Any = decoder.Decoder(model).apply(
    params, features['tokens'], features['positions']
  )
  return causal_lm.token_losses(logits, features).sum(axis=1)


def _features(
  place: str, rows: Sequence[dict[str, Any]], num_tokens: int
) -> dict[str, np.ndarray]:
  """[rows, tokens] arrays; what is longer than the model reads is cut.

  Args:
    place: of the tokenizer.
    rows: with prompt and text.
    num_tokens: at most.
  """
  tokenizer = token_rows.Tokenizer.load(place, add_end=True)
  found = [
    token_rows.row(tokenizer.documents(_COLUMNS, row), num_tokens)
    for row in rows
  ]
  longest = min(num_tokens, max(len(row['tokens']) for row in found))

  def padded(array: np.ndarray) -> np.ndarray:
    return np.pad(array[:longest], (0, max(0, longest - len(array))))

  return {
    name: np.stack([padded(row[name]) for row in found])
    for name in token_rows.FEATURES
  }


def _write_rows(
  workdir: str, split: str, rows: Iterable[dict[str, Any]]
) -> None:
  path = storage.join(workdir, 'texts', f'{split}.jsonl')
  lines = (json.dumps(row, ensure_ascii=False) for row in rows)
  with storage.open_for_writing(path) as file:
    file.write('\n'.join(lines).encode())


EXAMPLE = example.Example(make_config, load_config, train, measure)
