"""Engines by name: the Beam options that each of them stands for."""

from collections.abc import Callable, Sequence
import dataclasses
import shutil
import sys
from typing import Literal

from influence_core import errors
from pipeline.beam import engine_files

# DirectRunner would silently choose between two engines, depending on whether
# it can download one of them. FnApiRunner is always the same.
LOCAL_RUNNER = 'FnApiRunner'
DATAFLOW_RUNNER = 'DataflowRunner'
WORKER_PROGRAM = 'influence-worker'

# Where Beam's own servers listen unless they are told otherwise.
_JOB_ENDPOINT = 'localhost:8099'
_WORKER_POOL = 'localhost:50000'

# Options of Beam that are lists.
_LISTS = ('--dataflow_service_options', '--experiments')

# What the machines of Dataflow have.
DataflowWorker = Literal['cpu', 'gpu', 'tpu']

# Of the machines of an engine, in the words of Dataflow.
ACCELERATORS = {
  'dataflow-gpu': 'type:nvidia-l4;count:1;install-nvidia-driver',
  'dataflow-tpu': 'type:tpu-v5-lite-podslice;topology:1x1',
}
# For a step alone, of a job on other machines.
GPU_HINT = (
  'type:nvidia-l4;count:1;machine_type:g2-standard-8;install-nvidia-driver'
)


@dataclasses.dataclass(frozen=True)
class Engine:
  """A way to run a Beam pipeline.

  Attributes:
    summary: what it is, in a few words.
    arguments: Beam options for a number of workers.
  """

  summary: str
  arguments: Callable[[int], list[str]]


def _local(num_workers: int) -> list[str]:
  return [
    f'--runner={LOCAL_RUNNER}',
    f'--direct_num_workers={num_workers}',
    '--direct_running_mode=multi_threading',
  ]


def _dask(num_workers: int) -> list[str]:
  del (
    num_workers
  )  # Those of the cluster; without an address, one for each core.
  return [
    '--runner=apache_beam.runners.dask.dask_runner.DaskRunner',
    # One range for each task: a partition is lost and done again as a whole.
    '--dask_partition_size=1',
  ]


def _portable(num_workers: int) -> list[str]:
  del num_workers  # The worker pool's.
  return [
    '--runner=PortableRunner',
    f'--job_endpoint={_JOB_ENDPOINT}',
    '--environment_type=EXTERNAL',
    f'--environment_config={_WORKER_POOL}',
  ]


def _prism(num_workers: int) -> list[str]:
  return [
    '--runner=PrismRunner',
    f'--prism_location={engine_files.path("prism")}',
    '--prism_log_level=error',
    # Threads of this process, which share parameters, basis and devices.
    '--environment_type=LOOPBACK',
    f'--sdk_worker_parallelism={num_workers}',
  ]


def _flink(num_workers: int) -> list[str]:
  return [
    '--runner=FlinkRunner',
    '--flink_master=[local]',
    f'--flink_version={engine_files.FLINK_VERSION}',
    f'--flink_job_server_jar={engine_files.path("flink")}',
    f'--parallelism={num_workers}',
    *_worker_processes(),
  ]


def _spark(num_workers: int) -> list[str]:
  return [
    '--runner=SparkRunner',
    f'--spark_master_url=local[{num_workers}]',
    f'--spark_job_server_jar={engine_files.path("spark")}',
    *_worker_processes(),
  ]


def _worker_processes() -> list[str]:
  """Workers as processes, without containers."""
  program = shutil.which(WORKER_PROGRAM) or shutil.which(
    WORKER_PROGRAM, path=sys.prefix + '/bin'
  )
  if program is None:
    raise errors.InputError(
      f'the program {WORKER_PROGRAM} is not installed beside {sys.executable}; '
      'install influence-pipeline there, or pass --environment_type after --'
    )
  return [
    '--environment_type=PROCESS',
    f'--environment_options=process_command={program}',
  ]


def _dataflow(engine: str, machine_type: str) -> Callable[[int], list[str]]:
  def arguments(num_workers: int) -> list[str]:
    del num_workers  # Dataflow adds and removes machines by itself.
    device = [
      f'--dataflow_service_options=worker_accelerator={kind}'
      for name, kind in ACCELERATORS.items()
      if name == engine
    ]
    return [
      f'--runner={DATAFLOW_RUNNER}',
      f'--machine_type={machine_type}',
      *device,
      # One process on each machine, which owns its devices; its threads share
      # parameters and basis, and overlap input with work on the devices.
      '--experiments=no_use_multiple_sdk_containers',
      '--number_of_worker_harness_threads=2',
      # The image has this package and Beam.
      '--sdk_location=container',
      '--disk_size_gb=100',
    ]

  return arguments


@dataclasses.dataclass(frozen=True)
class EngineChoice:
  """Where a Beam pipeline is to run.

  Attributes:
    engine: a key of `ENGINES`; None for 'local', or for none at all.
    num_workers: workers on this machine; where the engine has its own, unused.
    beam_arguments: more options of Beam, as --name=value or --name value.
  """

  engine: str | None = None
  num_workers: int = 2
  beam_arguments: Sequence[str] = ()

  def __post_init__(self):
    errors.check_at_least_one(num_workers=self.num_workers)

  @property
  def is_chosen(self) -> bool:
    """Whether anything says that Beam is to be used."""
    return bool(self.engine or self.beam_arguments)


ENGINES: dict[str, Engine] = {
  'local': Engine('threads of this process', _local),
  'dask': Engine('a Dask cluster', _dask),
  'portable': Engine('a job server and worker pool of Beam', _portable),
  'prism': Engine("Beam's Prism, on this machine", _prism),
  'flink': Engine('Apache Flink', _flink),
  'spark': Engine('Apache Spark', _spark),
  'dataflow-cpu': Engine(
    'Dataflow', _dataflow('dataflow-cpu', 'n2-standard-8')
  ),
  'dataflow-gpu': Engine(
    'with an NVIDIA L4 on each machine',
    _dataflow('dataflow-gpu', 'g2-standard-8'),
  ),
  'dataflow-tpu': Engine(
    'with a TPU v5e on each machine',
    _dataflow('dataflow-tpu', 'ct5lp-hightpu-1t'),
  ),
}


def arguments(
  engine: str, num_workers: int, beam_arguments: Sequence[str]
) -> list[str]:
  """Beam options of an engine, with what the user wrote instead of or besides.

  Args:
    engine: a key of `ENGINES`.
    num_workers: workers on this machine; where the engine has its own, unused.
    beam_arguments: of the user, as --name=value or --name value.

  Raises:
    errors.InputError: What the engine needs is not installed.
  """
  if '--runner' in _names(beam_arguments):
    return list(beam_arguments)
  preset = [
    argument
    for argument in ENGINES[engine].arguments(num_workers)
    if not _is_replaced(argument, beam_arguments)
  ]
  if engine in engine_files.FILES and any(
    argument.endswith(f'={engine_files.path(engine)}') for argument in preset
  ):
    engine_files.check(engine)
  return [*preset, *beam_arguments]


def _names(beam_arguments: Sequence[str]) -> set[str]:
  return {argument.split('=', 1)[0] for argument in beam_arguments}


def _is_replaced(argument: str, beam_arguments: Sequence[str]) -> bool:
  """Whether the user sets what a preset argument is about.

  Options that are lists gain what the user adds, and lose what is said anew.
  """
  name, _, value = argument.partition('=')
  if name not in _LISTS or name not in _names(beam_arguments):
    return name in _names(beam_arguments)
  key = value.split('=', 1)[0].removeprefix('no_')
  return any(key in given for given in beam_arguments)
