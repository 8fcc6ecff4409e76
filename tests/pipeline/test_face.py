"""What users write: small, final, and all that README and examples use."""

import re
import subprocess
import sys

import pytest

import pipeline
from tests import test_layers
from tests.conftest import ROOT
from tests.kit import documentation

FACE = {
  'Corpus',
  'FileCorpus',
  'GradientProjector',
  'ID_KEY',
  'ImageFolderCorpus',
  'InputError',
  'OpenEnsemble',
  'OpenIndex',
  'ProjectionOptions',
  'QuerySession',
  'RawExample',
  'ScoreOptions',
  'SearchRequest',
  'Selection',
  'SourceCorpus',
  'SplitLoss',
  'Task',
  'TfdsCorpus',
  'UndecodableExample',
  'from_nnx',
  'from_torch',
  'load_arrays',
  'load_basis',
  'open_ensemble',
  'open_index',
  'save_arrays',
  'sum_checkpoints',
}


def test_names_are_these():
  assert set(pipeline.__all__) == FACE
  for name in FACE:
    assert getattr(pipeline, name).__doc__
    assert name in dir(pipeline)
  with pytest.raises(AttributeError, match="no attribute 'Tsak'"):
    _ = pipeline.Tsak


def test_nothing_is_imported_before_it_is_used():
  program = (
    'import sys, pipeline\n'
    "assert not {'jax', 'apache_beam', 'pyarrow'} & set(sys.modules)\n"
    'pipeline.InputError\n'
    "assert 'tensorflow_datasets' not in sys.modules\n"
  )
  subprocess.run([sys.executable, '-c', program], cwd=ROOT, check=True)


def test_tasks_that_were_written_before_go_on_working():
  from pipeline import checkpoint_sum, checkpoints, corpus, task

  assert task.Task is pipeline.Task
  assert corpus.TfdsCorpus is pipeline.TfdsCorpus
  assert checkpoints.load_arrays is pipeline.load_arrays
  assert checkpoint_sum.sum_checkpoints is pipeline.sum_checkpoints


def user_code():
  """Python that users read: in README, and the examples to start from."""
  readme = documentation.text()
  yield from re.findall(r'```python\n(.*?)```', readme, flags=re.DOTALL)
  yield (ROOT / 'tests' / 'kit' / 'linear_task.py').read_text()


def test_user_code_uses_nothing_else():
  blocks = list(user_code())
  assert len(blocks) > 3
  for block in blocks:
    for name in test_layers.imports(block):
      package, _, imported = name.rpartition('.')
      if name.split('.')[0] in test_layers.LAYERS:
        assert package == 'pipeline'
        assert imported in FACE
