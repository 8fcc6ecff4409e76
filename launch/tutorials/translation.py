# %% [markdown]
# # Wrong pairs among translations
#
# A small Transformer is trained on pairs of sentences, a twentieth of which
# are damaged: the wrong sentence, the wrong language, a copy, a truncated
# one. Which pairs would you throw out?
#
# `DATA_DIR` has a translation dataset that TFDS prepared; `DATASET` is its
# name, by default that of Multi30k. Half an hour on two cores; fewer `EPOCHS`
# are faster.

# %%
import os
from pathlib import Path
import subprocess
import sys

import matplotlib.figure

from pipeline import QuerySession, ScoreOptions, SearchRequest, open_index

OUT = Path(os.environ.get('OUT', 'tutorial_translation'))
DATA_DIR = os.environ['DATA_DIR']
DATASET = os.environ.get('DATASET', '')
EPOCHS = os.environ.get('EPOCHS', '6')


def influence(*words):
  """Types a command; the same in a shell is `influence ...`."""
  subprocess.run([sys.executable, '-m', 'launch', *map(str, words)], check=True)


# %%
TASK = (
  *('--task', 'launch.example_tasks.seq2seq:make_task'),
  *('--task_arg', f'workdir={OUT}/model', '--task_arg', 'loss_reduction=mean'),
)
dataset = ('--dataset', DATASET) if DATASET else ()
influence(
  *('train-example', 'seq2seq', '--workdir', OUT / 'model', *dataset),
  *('--data_dir', DATA_DIR, '--corrupt_pairs', 0.05, '--num_epochs', EPOCHS),
)

# %% [markdown]
# The loss is the mean over the tokens of a sentence: of sums, long sentences
# would come first whatever is wrong with them.

# %%
influence('fit-basis', *TASK, '--out', OUT / 'basis')
influence(
  *('project', *TASK, '--basis', OUT / 'basis', '--index', OUT / 'index')
)
index = open_index(str(OUT / 'index'))
print(index.schema.names)

# %% [markdown]
# ## Which kinds of damage are found?

# %%
rows = index.suspicious(index.num_examples).to_pylist()
kinds = sorted({row['corruption'] for row in rows} - {'none'})
figure = matplotlib.figure.Figure(figsize=(6, 4), layout='constrained')
axes = figure.subplots()
for kind in kinds:
  ranks = [n for n, row in enumerate(rows) if row['corruption'] == kind]
  shares = [(n + 1) / len(ranks) for n in range(len(ranks))]
  axes.step([n / len(rows) for n in ranks], shares, where='post', label=kind)
axes.plot([0, 1], [0, 1], '--', color='gray', label='chance')
axes.set_xlabel('share of the pairs looked at')
axes.set_ylabel('share found')
axes.legend()
figure.savefig(OUT / 'found.png')
figure

# %% [markdown]
# ## Where has it a word from?
#
# Sentences that share words with the query come first, once scores are
# divided by the norms of gradients. `tokens=True` says which words they are.

# %%
session = QuerySession(str(OUT / 'index'))
options = ScoreOptions(normalization='gradient_norm')
request = SearchRequest(k=3, options=options)
answer = session.ask('test[:2]', request, tokens=True)
answer.queries

# %%
for row in answer.of(answer.queries['id'][0].as_py()).to_pylist():
  strongest = sorted(row['tokens'], key=lambda token: -token['score'])[:3]
  words = ', '.join(repr(token['text']) for token in strongest)
  print(f'{row["score"]:8.3g}  by {words}')

# %% [markdown]
# A page has the sentences with their tokens shaded.

# %%
influence(
  *('report', '--index', OUT / 'index', '--query_split', 'test[:3]'),
  *('--tokens', '--num_examples', 20, '--normalization', 'gradient_norm'),
  *('--out', OUT / 'report.html'),
)
