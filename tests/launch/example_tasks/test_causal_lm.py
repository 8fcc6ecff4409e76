"""A published model and a file of texts, without any Python."""

import json
from pathlib import Path
import shutil

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from influence_core import errors
from launch.example_tasks import causal_lm, decoder, pretrained_decoder

MODELS = Path(__file__).parent / 'decoders'
TEXT = 'the a cat dog bird sat ran on in mat house and then who what'
WORDS = TEXT.split(' ')
SPECIAL = ['<end>', '<unknown>', '<user>', '<assistant>']
TEMPLATE = (
  "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {{ eos_token }}"
  ' {% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}'
)


@pytest.fixture(name='model')
def fixture_model(tmp_path):
  """A random model of 64 tokens with a tokenizer of words."""
  place = Path(shutil.copytree(MODELS / 'qwen2', tmp_path / 'model'))
  vocabulary = {word: i for i, word in enumerate(SPECIAL + WORDS)}
  tokenizer = tokenizers.Tokenizer(
    models.WordLevel(vocabulary, unk_token='<unknown>')
  )
  tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  tokenizer.save(str(place / 'tokenizer.json'))
  described = {'eos_token': {'content': '<end>'}, 'chat_template': TEMPLATE}
  (place / 'tokenizer_config.json').write_text(json.dumps(described))
  return place


def some_words(generator, count):
  return ' '.join(generator.choice(WORDS, count))


def write(directory, rows):
  path = directory / 'texts.parquet'
  pq.write_table(pa.Table.from_pylist(rows), path)
  return str(path)


def task_of(model, rows, **arguments):
  texts = write(model.parent, rows)
  return causal_lm.make_task(str(model), texts, **arguments)


def features_of(task):
  raw = task.corpus.read_positions(range(task.corpus.num_examples))
  return [task.preprocess(one) for _, one in raw]


def losses(task, features):
  """Of single examples, each by itself."""
  params = task.load_parameters()
  loss = jax.jit(task.per_example_loss)
  return [
    float(loss(params, jax.tree.map(lambda leaf: leaf[None], one))[0])
    for one in features
  ]


def loss_by_hand(model, ids, counted):
  """Minus log probability of the counted tokens, given those before."""
  config = pretrained_decoder.load_config(str(model))
  params = pretrained_decoder.load_parameters(str(model))
  logits = decoder.Decoder(config).apply(params, np.array([ids]))
  log_probabilities = jax.nn.log_softmax(logits[0])
  return -sum(
    float(log_probabilities[i, token])
    for i, token in enumerate(ids[1:])
    if counted[i + 1]
  )


def ids_of(text):
  return [(SPECIAL + WORDS).index(word) for word in text.split()]


def test_the_loss_of_a_text_is_that_of_its_tokens_and_its_end(model):
  [text] = texts = ['the cat sat on the mat']
  task = task_of(model, [{'text': x} for x in texts])
  ids = ids_of(f'{text} <end>')
  # float32 sums in another order.
  assert losses(task, features_of(task)) == pytest.approx(
    [loss_by_hand(model, ids, [True] * len(ids))], rel=1e-5
  )
  task = task_of(model, [{'text': text}], add_end=False)
  assert losses(task, features_of(task)) == pytest.approx(
    [loss_by_hand(model, ids[:-1], [True] * 6)], rel=1e-5
  )


def test_of_a_prompt_only_the_completion_counts(model):
  rows = [{'prompt': 'who sat on ', 'text': 'the mat'}]
  task = task_of(model, rows, prompt='prompt')
  ids = ids_of('who sat on the mat <end>')
  counted = [False] * 3 + [True] * 3
  assert losses(task, features_of(task)) == pytest.approx(
    [loss_by_hand(model, ids, counted)], rel=1e-5
  )


def test_of_a_conversation_only_the_assistant_counts(model):
  said = [
    {'role': 'user', 'content': 'who sat'},
    {'role': 'assistant', 'content': 'the cat'},
    {'role': 'user', 'content': 'what then'},
    {'role': 'assistant', 'content': 'a dog ran'},
  ]
  task = task_of(model, [{'talk': said}], messages='talk')
  text = (
    '<user> who sat <end> <assistant> the cat <end> '
    '<user> what then <end> <assistant> a dog ran <end>'
  )
  counted = [False] * 5 + [True] * 3 + [False] * 5 + [True] * 4
  assert losses(task, features_of(task)) == pytest.approx(
    [loss_by_hand(model, ids_of(text), counted)], rel=1e-5
  )
  (model / 'tokenizer_config.json').write_text('{"eos_token": "<end>"}')
  with pytest.raises(errors.InputError, match='has no chat_template'):
    task_of(model, [{'talk': said}], messages='talk')


@pytest.mark.parametrize(
  ('row', 'arguments', 'expected'),
  [
    ({'text': 'the cat  sat'}, {}, ['the cat', '  sat', '<end>']),
    ({'text': 'the cat'}, {'add_end': False}, ['the cat']),
    (
      {'text': ['a dog ran', 'who']},
      {},
      ['a dog', ' ran', '<end>', '<end>'],
    ),
    (
      {'prompt': 'who sat ', 'text': 'on'},
      {'prompt': 'prompt'},
      ['who sat', ' on', '<end>'],
    ),
  ],
)
def test_tokens_have_their_texts(model, row, arguments, expected):
  task = task_of(model, [row], **arguments)
  [features] = features_of(task)
  texts = task.token_texts(row)
  assert texts == expected
  assert len(texts) == len(features['targets'])


def test_packed_texts_add_up(model):
  texts = ['the cat sat', 'a dog ran on', 'who']
  packed = task_of(model, [{'text': texts}])
  [whole] = losses(packed, features_of(packed))
  alone = task_of(model, [{'text': x} for x in texts])
  assert whole == pytest.approx(
    sum(losses(alone, features_of(alone))), rel=1e-5
  )


def test_windows_of_a_long_text_add_up(model):
  generator = np.random.default_rng(0)
  text = some_words(generator, 40)
  task = task_of(model, [{'text': text}], num_tokens=16)
  [features] = features_of(task)
  padded = {name: np.pad(x, (0, 48 - len(x))) for name, x in features.items()}
  ids = [*ids_of(text), 0]
  expected = 0.0
  for start in range(0, 40, 16):
    window = ids[start : start + 17]
    expected += loss_by_hand(model, window, [True] * len(window))
  assert losses(task, [padded]) == pytest.approx([expected], rel=1e-5)


def test_lengths_grow_to_whole_windows():
  assert causal_lm.buckets(40, 3) == (16, 24, 32, 40, 80, 120)


@pytest.mark.parametrize(
  ('arguments', 'told'),
  [
    ({'num_tokens': 100}, 'num_tokens is 100, expected 16 to 64'),
    ({'loss_reduction': 'max'}, "loss_reduction is 'max'"),
  ],
)
def test_wrong_arguments_are_named(model, arguments, told):
  with pytest.raises(errors.InputError, match=told):
    task_of(model, [{'text': 'the cat'}], **arguments)


def test_a_tokenizer_is_needed(model):
  (model / 'tokenizer.json').write_text('{}')
  with pytest.raises(errors.InputError, match='is no tokenizer'):
    task_of(model, [{'text': 'the cat'}])
  (model / 'tokenizer.json').unlink()
  with pytest.raises(errors.InputError, match=r'tokenizer\.json is missing'):
    task_of(model, [{'text': 'the cat'}])


@pytest.mark.slow
def test_two_commands_and_a_question(model, influence, tmp_path):
  generator = np.random.default_rng(0)
  texts = [some_words(generator, generator.integers(3, 15)) for _ in range(30)]
  file = write(tmp_path, [{'text': x} for x in texts])
  task = [
    *('--task', 'launch.example_tasks.causal_lm:make_task'),
    *('--task_arg', f'model={model}', '--task_arg', f'texts={file}'),
  ]
  fit = ['fit-basis', *task, '--out', tmp_path / 'b']
  fitted = influence(*fit, '--coordinates_per_layer', 16, '--json')
  assert fitted.status == 0, fitted.stderr
  assert fitted.json['go'] is True
  index = ['--index', tmp_path / 'i']
  done = influence('project', *task, '--basis', tmp_path / 'b', *index)
  assert done.status == 0, done.stderr
  queries = tmp_path / 'queries.jsonl'
  queries.write_text(json.dumps({'text': texts[7]}))
  asked = ['topk', *task, *index, '--queries', queries, '--k', 3, '--tokens']
  found = influence(*asked, '--json')
  assert found.status == 0, found.stderr
  best = found.json['results'][0]
  assert best['kind'] == 'proponent'
  assert best['text'] == texts[7]
  for name in ('tokens', 'query_tokens'):
    told = [token['text'] for token in best[name]]
    assert ''.join(told) == f'{texts[7]}<end>'
    # float32 sums in another order.
    total = sum(token['score'] for token in best[name])
    assert total == pytest.approx(best['score'], rel=1e-4)
  done = influence(*asked, '--out', tmp_path / 'found.html')
  assert done.status == 0, done.stderr
  page = (tmp_path / 'found.html').read_text()
  assert page.count('<li class="card">') == 6
  assert 'class="for"' in page
  assert 'http' not in page.replace('http-equiv', '')
