"""The batch pipeline: tasks, corpora, storage, projection with Beam, retrieval.

The middle layer. It brings the mathematics of `influence_core` to corpora and
object stores, and knows nothing of command lines.

The names below are all that tasks and notebooks need: `from pipeline import
Task`. What they stand for is imported when it is first asked for, so that a
program that needs one thing does not wait for the others.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from influence_core.curvature.products import SplitLoss as SplitLoss
  from influence_core.errors import InputError as InputError
  from influence_core.projection.options import (
    ProjectionOptions as ProjectionOptions,
  )
  from influence_core.projection.projector import (
    GradientProjector as GradientProjector,
  )
  from influence_core.scores.options import ScoreOptions as ScoreOptions
  from pipeline.bases.stored_basis import load_basis as load_basis
  from pipeline.corpora.corpus import (
    ID_KEY as ID_KEY,
    Corpus as Corpus,
    RawExample as RawExample,
    UndecodableExample as UndecodableExample,
  )
  from pipeline.corpora.file_corpus import FileCorpus as FileCorpus
  from pipeline.corpora.image_folder import (
    ImageFolderCorpus as ImageFolderCorpus,
  )
  from pipeline.corpora.source_corpus import SourceCorpus as SourceCorpus
  from pipeline.corpora.tfds_corpus import TfdsCorpus as TfdsCorpus
  from pipeline.search.open_index import (
    OpenEnsemble as OpenEnsemble,
    OpenIndex as OpenIndex,
    open_ensemble as open_ensemble,
    open_index as open_index,
  )
  from pipeline.search.query_session import QuerySession as QuerySession
  from pipeline.search.request import SearchRequest as SearchRequest
  from pipeline.search.selection import Selection as Selection
  from pipeline.tasks.checkpoint_sum import sum_checkpoints as sum_checkpoints
  from pipeline.tasks.checkpoints import (
    load_arrays as load_arrays,
    save_arrays as save_arrays,
  )
  from pipeline.tasks.nnx_modules import from_nnx as from_nnx
  from pipeline.tasks.task import Task as Task
  from pipeline.tasks.torch_modules import from_torch as from_torch

_HOMES = {
  'Corpus': 'pipeline.corpora.corpus',
  'FileCorpus': 'pipeline.corpora.file_corpus',
  'ID_KEY': 'pipeline.corpora.corpus',
  'GradientProjector': 'influence_core.projection.projector',
  'ImageFolderCorpus': 'pipeline.corpora.image_folder',
  'InputError': 'influence_core.errors',
  'OpenEnsemble': 'pipeline.search.open_index',
  'OpenIndex': 'pipeline.search.open_index',
  'ProjectionOptions': 'influence_core.projection.options',
  'QuerySession': 'pipeline.search.query_session',
  'RawExample': 'pipeline.corpora.corpus',
  'ScoreOptions': 'influence_core.scores.options',
  'SearchRequest': 'pipeline.search.request',
  'Selection': 'pipeline.search.selection',
  'SourceCorpus': 'pipeline.corpora.source_corpus',
  'SplitLoss': 'influence_core.curvature.products',
  'Task': 'pipeline.tasks.task',
  'TfdsCorpus': 'pipeline.corpora.tfds_corpus',
  'UndecodableExample': 'pipeline.corpora.corpus',
  'from_nnx': 'pipeline.tasks.nnx_modules',
  'from_torch': 'pipeline.tasks.torch_modules',
  'load_arrays': 'pipeline.tasks.checkpoints',
  'load_basis': 'pipeline.bases.stored_basis',
  'open_ensemble': 'pipeline.search.open_index',
  'open_index': 'pipeline.search.open_index',
  'save_arrays': 'pipeline.tasks.checkpoints',
  'sum_checkpoints': 'pipeline.tasks.checkpoint_sum',
}
__all__ = [*_HOMES]
# Modules that tasks were once written with; they go on working.
_OLD_MODULES = {
  'checkpoint_sum': 'pipeline.tasks.checkpoint_sum',
  'checkpoints': 'pipeline.tasks.checkpoints',
  'corpus': 'pipeline.corpora.tfds_corpus',
  'task': 'pipeline.tasks.task',
}


def __getattr__(name: str) -> Any:
  if home := _HOMES.get(name):
    return getattr(importlib.import_module(home), name)
  if home := _OLD_MODULES.get(name):
    return importlib.import_module(home)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
