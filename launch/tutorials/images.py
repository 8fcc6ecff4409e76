# %% [markdown]
# # Wrong labels among images
#
# A small network is trained on 1,497 handwritten digits, a tenth of whose
# labels are made wrong. It memorises them. We find them again without knowing
# which they are, and ask why the network errs where it errs.
#
# Everything is made below `OUT`; nothing is downloaded. Two minutes on two
# cores.

# %%
import os
from pathlib import Path
import subprocess
import sys

import matplotlib.figure

from pipeline import QuerySession, ScoreOptions, SearchRequest, open_index

OUT = Path(os.environ.get('OUT', 'tutorial_images'))


def influence(*words):
  """Types a command; the same in a shell is `influence ...`."""
  subprocess.run([sys.executable, '-m', 'launch', *map(str, words)], check=True)


# %% [markdown]
# ## A model
#
# Bring your own with a module that returns a `pipeline.Task`, see
# `pipeline/README.md`. Here it is one of the examples.

# %%
TASK = (
  *('--task', 'launch.example_tasks.digits_cnn:make_task'),
  *('--task_arg', f'workdir={OUT}/model'),
)
influence(
  *('train-example', 'digits_cnn', '--workdir', OUT / 'model'),
  *('--flip_labels', 0.1),
)

# %% [markdown]
# ## A basis, and an index
#
# The basis holds the curvature of the loss in a subspace of each layer.
# Projecting computes the gradient of every training example once, and keeps
# its coordinates.

# %%
influence('fit-basis', *TASK, '--out', OUT / 'basis')
influence(
  *('project', *TASK, '--basis', OUT / 'basis', '--index', OUT / 'index')
)

# %%
index = open_index(str(OUT / 'index'))
index  # The first rows: what is known of each example, besides its projection.

# %% [markdown]
# ## What did the model have to memorise?
#
# Self-influence is how much an example determines its own loss. Examples that
# nothing else explains come first.

# %%
suspicious = index.suspicious(150)
rows = suspicious.to_pylist()
wrong = [row['label'] != row['true_label'] for row in rows]
print(f'{sum(wrong)} of the first {len(wrong)} have a wrong label')

# %% [markdown]
# Of all examples a tenth is wrong, so that chance would find 15 among 150.
# How fast are they found?

# %%
figure = matplotlib.figure.Figure(figsize=(6, 4), layout='constrained')
axes = figure.subplots()
found = [sum(wrong[: n + 1]) for n in range(len(wrong))]
axes.plot(range(1, len(wrong) + 1), found, label='self-influence')
axes.plot([1, len(wrong)], [0.1, 0.1 * len(wrong)], '--', label='chance')
axes.set_xlabel('examples looked at')
axes.set_ylabel('wrong labels found')
axes.legend()
figure.savefig(OUT / 'found.png')
figure

# %% [markdown]
# ## Why does it err here?
#
# We ask about test digits that the network gets wrong: positive scores are
# proponents, which lower the loss of the query, negative ones opponents.

# %%
session = QuerySession(str(OUT / 'index'))
answer = session.ask('test[:300]', SearchRequest(k=5))
queries = answer.queries.to_pylist()
errs = [row['id'] for row in queries if row['predicted'] != row['label']]
print(f'{len(errs)} of {len(queries)} test digits are misread')
asked = (errs or [queries[0]['id']])[0]
answer.of(asked, 'opponent')

# %%
figure = matplotlib.figure.Figure(figsize=(9, 4), layout='constrained')
answer.plot(asked, figure.subplots())
figure.savefig(OUT / 'answer.png')
figure

# %% [markdown]
# Opponents of a misread digit are mostly training digits of its shape that
# were given another label:

# %%
opponents = answer.of(asked, 'opponent').to_pylist()
for row in opponents:
  note = '' if row['label'] == row['true_label'] else ', a wrong label'
  print(f'{row["score"]:9.2f}  label {row["label"]}{note}')

# %% [markdown]
# ## The same with other choices
#
# Damping, normalisation and layers are chosen with each question; nothing is
# projected again.

# %%
options = ScoreOptions(layers='Dense', normalization='cosine')
session.ask('test[:1]', SearchRequest(k=3, options=options))

# %% [markdown]
# ## To look at
#
# `influence report` puts all of it on one page, with the images.

# %%
influence(
  *('report', '--index', OUT / 'index', '--query_split', 'test[:10]'),
  *('--bad', 'label <> true_label', '--out', OUT / 'report.html'),
)
