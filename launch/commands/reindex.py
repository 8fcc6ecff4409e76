"""`influence reindex`: the one command that a scheduler calls.

lock -> basis (refit where the model changed) -> project -> verify -> gc
  -> announce
"""

import os
import subprocess
from typing import Any

from influence_core import errors, parameter_selection
from launch.output import console as console_lib, json_text
from launch.running import basis_fit, index_upkeep, projection
from launch.schedule import reindex_config
from pipeline.bases import fit_basis_config, stored_basis
from pipeline.bases.kronecker_config import KroneckerConfig
from pipeline.storage import (
  files as storage,
  fingerprints,
  run_lock,
  stored_objects,
)
from pipeline.tasks import loaded_task
from pipeline.upkeep import refitted_bases


def run(console: console_lib.Console, *, config: str) -> dict[str, Any]:
  """Brings an index up to date.

  Raises:
    run_lock.OverlapError: Another run is at work.
    fingerprints.StaleFingerprintError: The basis is of another model, and is
      not to be fitted again.
    errors.InputError: See the commands that it consists of.
  """
  settings = reindex_config.load(config)
  index = storage.absolute(settings.index)
  with run_lock.hold(index, settings.lock_hours):
    result: dict[str, Any] = {'index': index}
    basis = _current_basis(console, settings)
    result['basis'] = basis
    result['project'] = projection.project_and_tell(
      console, **settings.project_arguments(basis)
    )
    if settings.verify:
      result['verify'] = index_upkeep.verify_index(console, index=index)
    if settings.gc is not None:
      result['gc'] = index_upkeep.collect_garbage(
        console, **settings.gc_arguments()
      )
      if not result['gc']['dry_run']:
        result['removed_bases'] = refitted_bases.remove_unused(
          storage.absolute(settings.basis), index, basis
        )
    if settings.announce:
      _announce(settings.announce, result)
  return result


def _current_basis(
  console: console_lib.Console, settings: reindex_config.ReindexConfig
) -> str:
  """A basis of the model as it is now.

  That of the configuration, or one beside it that is named by the model.
  """
  record = stored_basis.load_record(settings.basis)
  request = settings.project_arguments(settings.basis)['request']
  task = request.task.selecting(record.config['parameter_paths'])
  loaded = loaded_task.LoadedTask.unchecked(
    task, probe=stored_basis.load_probe(record)
  )
  try:
    stored_basis.check_belongs(record, loaded.fingerprints)
    return record.path
  except fingerprints.StaleFingerprintError as error:
    if not settings.refit_basis:
      raise
    console.tell(f'{error}; it is fitted again')
  model = fingerprints.of_json(dict(loaded.fingerprints))
  path = refitted_bases.path_for(record.path, model)
  basis_fit.fit_and_show(
    console,
    task=task,
    out=path,
    config=_same_config(record, loaded),
    resources=fit_basis_config.Resources(
      max_rejected_fraction=request.max_rejected_fraction
    ),
  )
  refitted_bases.claim(path, storage.absolute(settings.index))
  return path


def _same_config(
  record: stored_basis.BasisRecord, loaded: loaded_task.LoadedTask
) -> fit_basis_config.FitBasisConfig | KroneckerConfig:
  """What the basis was fitted with, for the model as it is now.

  Raises:
    errors.InputError: It was not made by fit-basis.
  """
  kinds = KroneckerConfig, fit_basis_config.FitBasisConfig
  for kind in kinds:
    names = kind.__dataclass_fields__
    if names.keys() <= record.config.keys():
      known = {name: record.config[name] for name in names}
      config: Any = stored_objects.parse(kind, known, record.path)
      if kind is KroneckerConfig:
        return config
      return config.within(parameter_selection.num_parameters(loaded.selected))
  raise errors.InputError(
    f'the basis at {record.path} was not made by fit-basis, and cannot be '
    'fitted again for another model; make one, or leave refit_basis out'
  )


def _announce(program: list[str] | tuple[str, ...], result: Any) -> None:
  try:
    subprocess.run(
      list(program),
      input=json_text.encode(result).encode(),
      check=True,
      stdout=subprocess.DEVNULL,
    )
  except (OSError, subprocess.CalledProcessError) as error:
    raise errors.InputError(
      f'the index is up to date, but could not be announced ({error}); correct '
      f'announce, which is {os.fsdecode(program[0])}'
    ) from error
