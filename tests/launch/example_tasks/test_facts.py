"""Facts that a language model is made to know, and whether they are found."""

import dataclasses

import numpy as np
import pytest

from launch.commands import reproduce
from launch.example_tasks import decoder, planted_facts, pretrained_decoder
from launch.reproduce import facts_recipe
from pipeline.evaluation import bm25
from tests.kit import recipe_methods, text_corpus

NUM_PEOPLE = 12
FACTS = planted_facts.make(NUM_PEOPLE, seed=3)
TINY = dataclasses.replace(
  facts_recipe.FACTS,
  training=(
    *('--dataset', 'numbers', '--size', 'mini', '--num_epochs', '30'),
    *('--train_split', 'train[:100]'),
  ),
  coordinates_per_layer=32,
  many_coordinates=64,
  checkpoint_coordinates=16,
  checkpoints=('30',),
  sample_size=128,
  arnoldi_sample_size=16,
)


def test_facts_are_those_of_a_seed():
  assert planted_facts.make(NUM_PEOPLE, seed=3) == FACTS
  assert planted_facts.make(NUM_PEOPLE, seed=4) != FACTS
  assert len(FACTS) == len(set(FACTS)) == 2 * NUM_PEOPLE
  # Four people share an answer, so that the answer alone says too little.
  answers = [fact.answer for fact in FACTS]
  assert all(answers.count(answer) == 4 for answer in answers)
  # Every other person is asked about; questions about the others are learnt.
  asked = [row['fact'] for row in planted_facts.questions(FACTS)]
  assert asked == list(range(0, len(FACTS), 2))
  told = [row['fact'] for row in planted_facts.documents(FACTS)]
  counts = [told.count(number) for number in range(len(FACTS))]
  assert counts == [10, 11] * NUM_PEOPLE
  wrong = list(planted_facts.wrong_answers(FACTS))
  assert [len(own) for own in wrong] == [NUM_PEOPLE // 4 - 1] * len(asked)


def test_half_of_the_sentences_share_no_word_with_the_question():
  documents = list(planted_facts.documents(FACTS))
  questions = list(planted_facts.questions(FACTS))
  scores = bm25.scores(
    [row['prompt'] + row['text'] for row in questions],
    [row['text'] for row in documents],
  )
  for question, own in zip(questions, scores, strict=True):
    about = [row['fact'] == question['fact'] for row in documents]
    for is_shared in (0, 1):
      chosen = [row['shares_words'] == is_shared for row in documents]
      found = own[np.logical_and(about, chosen)]
      assert len(found) == 5
      assert (found > 0).all() if is_shared else (found == 0).all()


def test_a_decoder_is_read_as_it_was_written(tmp_path):
  content = {
    'model_type': 'llama',
    'vocab_size': 11,
    'hidden_size': 8,
    'intermediate_size': 12,
    'num_hidden_layers': 3,
    'num_attention_heads': 2,
    'max_position_embeddings': 16,
    'rms_norm_eps': 1e-6,
    'hidden_act': 'silu',
  }
  place = str(tmp_path / 'model')
  params = decoder.initialise(pretrained_decoder.configure(place, content))
  pretrained_decoder.save(place, content, params)
  assert pretrained_decoder.load_config(place).num_layers == 3
  read = pretrained_decoder.load_parameters(place)
  for one, other in zip(
    *(sorted(_leaves(tree)) for tree in (params, read)), strict=True
  ):
    assert one[0] == other[0]
    np.testing.assert_array_equal(one[1], other[1])


def _leaves(tree, path=''):
  for name, value in tree.items():
    if isinstance(value, dict):
      yield from _leaves(value, f'{path}/{name}')
    else:
      yield f'{path}/{name}', np.asarray(value)


@pytest.mark.scale
def test_they_are_found(influence, monkeypatch, tmp_path):
  text_corpus.prepare(tmp_path / 'data')
  monkeypatch.setitem(reproduce.RECIPES, 'facts', TINY)
  others = {x.name for x in TINY.methods} - {'kronecker_whitened'}
  recipe_methods.leave_out(monkeypatch, TINY, others)
  done = influence(
    *('reproduce', 'facts', '--out', tmp_path / 'r'),
    *('--data_dir', tmp_path / 'data'),
  )
  assert done.status == 0, done.stderr
  page = (tmp_path / 'r' / 'RESULTS.md').read_text()
  figures = {
    cells[1].strip(' `'): [float(cell.split()[0]) for cell in cells[3:9]]
    for line in page.splitlines()
    if line.startswith('| `') and len(cells := line.split('|')) > 9
  }
  assert figures.keys() == {
    *('kronecker_whitened', 'kronecker_checkpoints', 'bm25', 'embedding')
  }
  # Of words that are not there nothing is known: all others come first.
  assert figures['bm25'][4] == 0
  # Of sentences with the names there are five, all among the first ten.
  assert figures['bm25'][2] == 1
  answers = (tmp_path / 'r' / 'answers.html').read_text()
  assert answers.count('<article ') == 8
  assert 'class="for"' in answers
