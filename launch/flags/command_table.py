"""The commands of `influence`: their flags, summaries and examples."""

from collections.abc import Callable
import dataclasses

from launch.flags import (
  cluster as cluster_flags,
  common as common_flags,
  dataflow as dataflow_flags,
  engine as engine_flags,
  evaluate as evaluate_flags,
  example as example_flags,
  fields,
  fit_basis as fit_basis_flags,
  index as index_flags,
  project as project_flags,
  report as report_flags,
  schedule as schedule_flags,
  search as search_flags,
)

_TASK_EXAMPLE = (
  '--task launch.example_tasks.mnist_cnn:make_task --task_arg workdir=W'
)


@dataclasses.dataclass(frozen=True)
class Command:
  """A command; its name is that of a module of `launch.commands`.

  Attributes:
    add_arguments: adds its flags to a parser.
    summary: what it does, in one line.
    example: what may follow its name.
    rest: name of the argument that gets what follows --; None for none.
  """

  add_arguments: Callable[[fields.CommandParser], None]
  summary: str
  example: str
  rest: str | None = None


# The first of two words is a group of commands.
COMMANDS: dict[str, Command] = {
  'demo': Command(
    example_flags.add_demo,
    'finds the wrong labels among 1,797 handwritten digits, all stages',
    '--out influence_demo',
  ),
  'train-example': Command(
    example_flags.add_train_example,
    'trains a model to try the other commands on',
    'mnist_cnn --workdir W --data_dir D --flip_labels 0.1',
  ),
  'fit-basis': Command(
    fit_basis_flags.add_fit_basis,
    'fits a subspace of the gradients of each layer, or leading eigenpairs',
    f'{_TASK_EXAMPLE} --out W/basis --projection_dim 50',
  ),
  'random-basis': Command(
    fit_basis_flags.add_random_basis,
    'makes a random basis, the baseline beside fit-basis',
    f'{_TASK_EXAMPLE} --out W/random --projection_dim 50',
  ),
  'query-basis': Command(
    fit_basis_flags.add_query_basis,
    'solves for single queries: conjugate gradients, LiSSA, EK-FAC, ...',
    f"{_TASK_EXAMPLE} --out W/cg --query_split 'test[:10]' --method cg",
  ),
  'project': Command(
    project_flags.add_project,
    'projects the gradient of every training example and stores an index',
    f'{_TASK_EXAMPLE} --basis W/basis --index W/index',
    rest='beam_arguments',
  ),
  'reindex': Command(
    schedule_flags.add_reindex,
    'brings an index up to date: the one command that a scheduler calls',
    '--config reindex.toml',
  ),
  'submit dataflow': Command(
    dataflow_flags.add_submit,
    'projects a corpus on Dataflow, without waiting for it',
    '--project P --region us-central1 --image I --temp_location gs://B/tmp '
    '--task my_team.my_task:make_task --task_arg workdir=gs://B/model '
    '--basis gs://B/basis --index gs://B/index',
    rest='beam_arguments',
  ),
  'submit batch': Command(
    cluster_flags.add_batch,
    'runs a command as a job of Cloud Batch',
    '--project P --region us-central1 --image I --job_name fit '
    '--machine_type g2-standard-8 --accelerator nvidia-l4 -- fit-basis '
    '--task my_team.my_task:make_task --out gs://B/basis',
    rest='command',
  ),
  'submit kubernetes': Command(
    cluster_flags.add_kubernetes,
    'prints a command as a Kubernetes job, for kubectl apply',
    '--image I --job_name fit --accelerator tpu-v5-lite-podslice '
    '--topology 2x4 --num_accelerators 4 --num_hosts 2 -- fit-basis '
    '--multi_process --task my_team.my_task:make_task --out gs://B/basis',
    rest='command',
  ),
  'status': Command(
    dataflow_flags.add_status,
    'shows a Dataflow job, or follows it to its end',
    '2026-11-25_01_02_03-123 --project P --region us-central1 --follow',
  ),
  'dataflow-template': Command(
    dataflow_flags.add_template,
    'writes a flex template, which schedulers launch jobs from',
    '--image I --out gs://B/template.json',
  ),
  'schedule': Command(
    schedule_flags.add_schedule,
    'writes what runs reindex at set times: cron, systemd, Google Cloud',
    "--config gs://B/reindex.toml --cron '0 3 * * *' --out DIR "
    '--project P --region us-central1 --image I',
  ),
  'topk': Command(
    search_flags.add_topk,
    'finds proponents and opponents of queries in an index',
    f"{_TASK_EXAMPLE} --index W/index --query_split 'test[:100]' --k 10",
    rest='beam_arguments',
  ),
  'report': Command(
    report_flags.add_report,
    'writes an index as a page: suspicious examples, queries, classes, basis',
    "--index W/index --query_split 'test[:10]' --out report.html",
  ),
  'explore': Command(
    search_flags.add_explore,
    'serves an index as a page to ask questions on, on this machine',
    '--index W/index',
  ),
  'self-influence': Command(
    search_flags.add_self_influence,
    'finds mislabelled and atypical training examples in an index',
    '--index W/index --k 100',
  ),
  'evaluate detection': Command(
    evaluate_flags.add_detection,
    'measures how well scores find examples that are known to be bad',
    '--index W/index --bad "label <> true_label" --out W/evaluation',
  ),
  'evaluate lds': Command(
    evaluate_flags.add_lds,
    'measures how well influence predicts training on parts of the corpus',
    f"{_TASK_EXAMPLE} --index W/index --query_split 'test[:50]' --out W/lds",
  ),
  'evaluate counterfactual': Command(
    evaluate_flags.add_counterfactual,
    'trains without the top proponents: do the losses of the queries rise?',
    f"{_TASK_EXAMPLE} --index W/index --query_split 'test[:20]' --out W/cf",
  ),
  'evaluate retrieval': Command(
    evaluate_flags.add_retrieval,
    'measures how high the examples are ranked that should be found',
    f"{_TASK_EXAMPLE} --index W/index --query_split 'test[:50]' "
    '--relevant "label = query_label"',
  ),
  'evaluate agreement': Command(
    evaluate_flags.add_agreement,
    'compares scores with those of another basis or method',
    f'{_TASK_EXAMPLE} --index W/index --reference W/exact_index '
    "--query_split 'test[:10]'",
  ),
  'evaluate sensitivity': Command(
    evaluate_flags.add_sensitivity,
    'measures what the figures depend on, one option at a time',
    f"{_TASK_EXAMPLE} --query_split 'test[:50]' --bad "
    '"label <> true_label" --knob damping=0,0.01,1 --out W/sensitivity',
  ),
  'reproduce': Command(
    example_flags.add_reproduce,
    'runs every method on an example and writes a page of results',
    'digits --out R',
  ),
  'estimate': Command(
    project_flags.add_estimate,
    'times a few ranges: hours, bytes, requests and cost of a whole corpus',
    f'{_TASK_EXAMPLE} --basis W/basis --num_workers 10 100',
  ),
  'runs': Command(
    index_flags.add_runs,
    'lists what was estimated for an index, and what its runs took',
    '--index W/index',
  ),
  'doctor': Command(
    project_flags.add_doctor,
    'checks a task and states memory, batch size and expected rate',
    _TASK_EXAMPLE,
  ),
  'install-engine': Command(
    engine_flags.add_install_engine,
    'fetches the job server of Flink or Spark, or Prism, with Maven or Go',
    'prism',
  ),
  'generations': Command(
    common_flags.add_index,
    'lists the published states of an index',
    '--index W/index',
  ),
  'diff': Command(
    index_flags.add_diff,
    'shows what changed between two generations of an index',
    '--index W/index --old 1 --new 2',
  ),
  'rollback': Command(
    index_flags.add_rollback,
    'publishes an older generation again, as the newest',
    '--index W/index --generation 1',
  ),
  'gc': Command(
    index_flags.add_gc,
    'deletes generations and files that no reader needs',
    '--index W/index --dry_run',
  ),
  'export': Command(
    index_flags.add_export,
    'writes an index as one file for pandas, Polars, DuckDB, numpy or FAISS',
    '--index W/index --format parquet --out W/index.parquet',
  ),
  'verify': Command(
    common_flags.add_index,
    'reads every byte of an index and checks it',
    '--index W/index',
  ),
  'describe': Command(
    index_flags.add_describe,
    'shows what a basis or an index is, and how good',
    '--basis W/basis',
  ),
}

# What the first word stands for, of commands of two words.
GROUPS = {
  'evaluate': 'measures how good scores are',
  'submit': 'sends a job to a cloud',
}
