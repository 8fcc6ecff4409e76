# %% [markdown]
# # Where has a language model a fact from?
#
# A small Llama learns captions, and made-up facts about made-up people from
# ten sentences each. Half of these sentences share no word with the question,
# so that no search for words can find them.
#
# `DATA_DIR` has a dataset of texts that TFDS prepared, such as Multi30k;
# `DATASET` is its name, if it is another. Ten minutes on two cores.

# %%
import os
from pathlib import Path
import subprocess
import sys

import matplotlib.figure

from pipeline import QuerySession, ScoreOptions, SearchRequest

OUT = Path(os.environ.get('OUT', 'tutorial_language_model'))
DATA_DIR = os.environ['DATA_DIR']
DATASET = os.environ.get('DATASET', '')
EPOCHS = os.environ.get('EPOCHS', '60')
TRAIN_SPLIT = os.environ.get('TRAIN_SPLIT', 'train[:2000]')


def influence(*words):
  """Types a command; the same in a shell is `influence ...`."""
  subprocess.run([sys.executable, '-m', 'launch', *map(str, words)], check=True)


# %%
dataset = ('--dataset', DATASET) if DATASET else ()
influence(
  *('train-example', 'facts', '--workdir', OUT / 'model', *dataset),
  *('--data_dir', DATA_DIR, '--num_epochs', EPOCHS),
  *('--train_split', TRAIN_SPLIT),
)

# %% [markdown]
# What is written below `OUT/model/model` is a model as Hugging Face writes
# it, so that a model of your own goes the same way: `causal_lm:make_task`
# with `model=DIR` and `texts=FILE`.
#
# ## Directions of what is particular
#
# The leading directions of a layer hold what all texts have in common. A fact
# is in the small ones, so we whiten.

# %%
TASK = (
  *('--task', 'launch.example_tasks.facts:make_task'),
  *('--task_arg', f'workdir={OUT}/model'),
)
influence(
  *('fit-basis', *TASK, '--out', OUT / 'basis'),
  *('--directions', 'whitened', '--coordinates_per_layer', 256),
)
influence(
  *('project', *TASK, '--basis', OUT / 'basis', '--index', OUT / 'index')
)

# %%
session = QuerySession(str(OUT / 'index'))
options = ScoreOptions(normalization='gradient_norm')
answer = session.ask('test', SearchRequest(k=10, options=options))
answer.queries

# %% [markdown]
# Each row knows which fact it tells, `-1` for a caption. How many of the
# first ten are about the fact that is asked for?

# %%
facts = {row['id']: row['fact'] for row in answer.queries.to_pylist()}
rows = [row for row in answer.results.to_pylist() if row['kind'] == 'proponent']
right = [row for row in rows if row['fact'] == facts[row['query_id']]]
print(f'{len(right) / len(facts):.1f} of the first ten, on average')
hidden = sum(not row['shares_words'] for row in right)
print(f'{hidden} of {len(right)} share no word with the question')

# %%
figure = matplotlib.figure.Figure(figsize=(6, 4), layout='constrained')
axes = figure.subplots()
ranks = range(1, 11)
axes.bar(
  ranks,
  [sum(row['rank'] == rank for row in right) / len(facts) for rank in ranks],
)
axes.set_xlabel('rank')
axes.set_ylabel('share of questions answered there')
figure.savefig(OUT / 'ranks.png')
figure

# %% [markdown]
# ## Which words carry it?

# %%
first = answer.queries['id'][0].as_py()
shaded = session.ask(
  'test[:1]', SearchRequest(k=3, options=options), tokens=True
)
for row in shaded.of(first).to_pylist():
  strongest = sorted(row['tokens'], key=lambda token: -token['score'])[:3]
  words = ', '.join(repr(token['text']) for token in strongest)
  print(f'{row["score"]:8.3g}  by {words}: {row["text"]}')

# %% [markdown]
# A page has all of it, shaded.

# %%
influence(
  *('topk', '--index', OUT / 'index', '--query_split', 'test', '--tokens'),
  *('--k', 3, '--normalization', 'gradient_norm'),
  *('--out', OUT / 'answers.html'),
)
