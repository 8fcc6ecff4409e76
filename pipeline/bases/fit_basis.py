"""The basis job: corpus sample -> curvature -> Arnoldi -> stored basis."""

from collections.abc import Callable
import dataclasses
import time

import numpy as np

from influence_core import parameter_selection, types
from influence_core.devices import memory as device_memory, multi_device
from influence_core.eigenpairs import (
  arnoldi,
  basis as basis_lib,
  krylov_vectors,
  ritz,
  trust as basis_trust,
)
from pipeline.bases import (
  curvature_sample,
  kept_vectors,
  krylov_job,
  stored_basis,
  task_basis,
)
from pipeline.bases.fit_basis_config import (
  CHANGEABLE,
  FitBasisConfig,
  Resources,
)
from pipeline.tasks import loaded_task


def fit_basis(
  loaded: loaded_task.LoadedTask,
  path: str,
  config: FitBasisConfig,
  resources: Resources,
  *,
  replaced: stored_basis.BasisRecord | None = None,
  announce: Callable[[str], None] = lambda text: None,
  progress: types.ProgressCallback = types.no_progress,
) -> stored_basis.BasisRecord:
  """Fits a basis on one fixed random sample and stores it at `path`.

  Interrupted, it continues at the last Krylov vector. Those of a basis that
  ends in NO-GO are kept, and more of it is fitted from there. With several
  processes all must call it.

  Args:
    loaded: the task.
    path: where the basis is stored.
    config: what to fit.
    resources: where to keep vectors, and memory.
    replaced: the basis at `path` that is to be gone on from, see
      `kept_vectors`; None where there is none.
    announce: called with what was decided, before it is done.
    progress: called after each Arnoldi step.

  Raises:
    errors.InputError: Too many examples of the sample cannot be used, memory
      or disk do not suffice, or the basis cannot be stored.
  """
  _check_size(loaded, config)
  started = time.monotonic()
  samples = curvature_sample.CurvatureSamples(
    loaded,
    config.sample_size,
    config.seed,
    max_rejected_fraction=resources.max_rejected_fraction,
    memory_budget_bytes=resources.memory_budget_bytes,
  )
  if config.check_sample:
    samples.check_second()
  job = _Job(loaded, path, config, resources, announce, progress)
  sample = samples.first()
  run, pairs = job.run('first', sample)
  trace = None
  if config.num_trace_probes:
    trace = _trace(run.operator, run.vectors, pairs, config)
  report = basis_lib.make_report(
    run.state,
    pairs,
    run.vectors,
    sample_size=curvature_sample.num_used(sample),
    seconds=time.monotonic() - started,
    tolerance=config.tolerance,
    trace=trace,
  )
  run = dataclasses.replace(run, operator=None)  # Its memory is needed.
  if config.check_sample:
    other = samples.second()
    both = curvature_sample.join(sample, other)
    report = dataclasses.replace(
      report,
      second_sample=job.agreement(run, pairs, 'second_sample', other),
      doubled_sample=job.agreement(run, pairs, 'doubled_sample', both),
    )
  report = dataclasses.replace(report, rejected=samples.rejected)
  vectors = basis_lib.eigenvectors(run.vectors, pairs, loaded.selected)
  record = task_basis.save(
    *(path, loaded, config, pairs.eigenvalues, vectors, report),
    replaced=replaced,
  )
  if not report.objections:
    multi_device.any_process(False)  # All wait until the first has stored it.
    kept_vectors.remove(kept_vectors.work_directory(path, resources))
  return record


def _check_size(loaded: loaded_task.LoadedTask, config: FitBasisConfig) -> None:
  """Refuses more pairs than there are directions, or than memory can form."""
  dim = config.projection_dim
  parameter_selection.check_projection_dim(dim, loaded.selected)
  path, largest = max(loaded.selected.items(), key=lambda item: item[1].size)
  # Eigenvectors are formed parameter by parameter, and converted to be stored.
  device_memory.check_host_memory(
    2 * 4 * dim * largest.size,
    f'{dim} eigenvectors of {path}, {largest.size:,} parameters, which are '
    'formed at a time,',
    f'pass a smaller --projection_dim or leave it out by --parameter_paths '
    f"'!{path}'",
  )


class _Job:
  """The iterations of a job, each with its own durable copy."""

  def __init__(self, loaded, path, config, resources, announce, progress):
    self._loaded = loaded
    self._config = config
    self._resources = resources
    self._announce = announce
    self._progress = progress
    self._work_dir = kept_vectors.work_directory(path, resources)

  def run(
    self, name: str, sample: types.Features
  ) -> tuple[krylov_job.KrylovRun, ritz.RitzPairs]:
    """An iteration on a sample, and the pairs of it that are kept."""
    run = krylov_job.run_iteration(
      self._loaded,
      sample,
      self._iteration(name),
      self._resources,
      directory=kept_vectors.process_directory(self._work_dir, name),
      announce=lambda text: self._announce(f'{name}: {text}'),
      on_step=lambda state: self._progress(
        state.num_products, self._config.max_products
      ),
    )
    return run, basis_lib.kept_pairs(
      run.state,
      self._config.projection_dim,
      keep_negative=self._config.keep_negative,
    )

  def agreement(
    self, run, pairs, name: str, sample: types.Features
  ) -> basis_trust.SubspaceAgreement:
    """Of an iteration with that on another sample."""
    other_run, other_pairs = self.run(name, sample)
    return basis_trust.subspace_agreement(
      run.vectors, pairs, other_run.vectors, other_pairs
    )

  def _iteration(self, name: str) -> krylov_job.Iteration:
    config = self._config
    converged = ritz.has_converged(
      config.projection_dim,
      config.tolerance,
      keep_negative=config.keep_negative,
    )

    def is_done(state: arnoldi.ArnoldiState) -> bool:
      if state.num_products >= config.max_products:
        return True
      return config.num_iterations is None and converged(state)

    policy = None
    if config.max_steps < config.max_products:
      policy = ritz.restart_policy(
        config.projection_dim,
        config.max_steps,
        keep_negative=config.keep_negative,
      )
    full = task_basis.full_config(config, self._loaded)
    return krylov_job.Iteration(
      curvature=config.curvature,
      dtype=krylov_vectors.DTYPES[config.krylov_dtype],
      seed=config.seed,
      max_vectors=config.max_steps + 1,
      is_done=is_done,
      restart_policy=policy,
      identity={
        **{field: x for field, x in full.items() if field not in CHANGEABLE},
        'task': self._loaded.fingerprints,
      },
      # Iterations that it is compared with end when they like.
      max_products=config.num_iterations if name == 'first' else None,
    )


def _trace(
  operator, vectors, pairs: ritz.RitzPairs, config: FitBasisConfig
) -> basis_trust.TraceEstimate:
  def inner_product(one, other):
    own = np.vdot(np.asarray(one), np.asarray(other))
    return float(multi_device.sum_over_processes(np.array(float(own))))

  return basis_trust.estimate_trace(
    operator,
    (
      operator.random_vector([config.seed, 1, number], signs=True)
      for number in range(config.num_trace_probes)
    ),
    inner_product=inner_product,
    num_parameters=operator.num_parameters,
    kept=(vectors, pairs),
  )
