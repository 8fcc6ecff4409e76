import json

import pyarrow.parquet as pq
import pytest


@pytest.mark.slow
def test_demo_finds_the_wrong_labels(influence, tmp_path):
  done = influence('demo', '--out', tmp_path, '--json')
  assert done.status == 0
  summary = json.loads((tmp_path / 'summary.json').read_text())
  assert done.json == summary
  assert summary['num_examples'] == 1497
  coordinates = [layer['count'] for layer in summary['layers']]
  assert sum(coordinates) == len(summary['eigenvalues'])
  assert summary['projection_dim'] == sum(coordinates)
  scores = summary['mislabeled']
  # Memorised labels have a small loss: the point of self-influence is that it
  # still finds them. 0.1 is what chance gives.
  assert scores['self_influence']['average_precision'] > 0.5
  assert (
    scores['self_influence']['average_precision']
    > scores['loss']['average_precision']
  )
  assert scores['random']['precision_at_100'] < 0.3
  assert len(summary['queries']) == 3
  for query in summary['queries']:
    assert query['proponents'][0]['score'] > 0 > query['opponents'][0]['score']
  assert {'train', 'fit-basis', 'project', 'topk'} <= set(summary['seconds'])
  page = (tmp_path / 'report.html').read_text()
  assert page.count('data-words=') == 200
  assert page.count('<article') == 3
  assert page.count('<img') >= 200 + 3 * (1 + 8 + 8)
  # Of the first hundred, as the table says.
  bad = [' data-bad>' in x for x in page.split('data-words=')[1:101]]
  assert sum(bad) == round(100 * scores['self_influence']['precision_at_100'])


@pytest.mark.slow
def test_every_command_of_the_readme_on_digits(influence, tmp_path):
  flips = ['--flip_labels', 0.1, '--num_epochs', 3]
  train = ['train-example', 'digits_cnn', '--workdir', tmp_path, *flips]
  assert influence(*train).status == 0
  assert 'trained already' in influence(*train).stdout
  other = influence(*train, '--seed', 1)
  assert 'trained with other options' in other.error_line
  task = [
    *('--task', 'launch.example_tasks.digits_cnn:make_task'),
    *('--task_arg', f'workdir={tmp_path}'),
  ]
  fit = ['fit-basis', *task, '--out', tmp_path / 'b', '--sample_size', 64]
  fit += ['--num_iterations', 12, '--projection_dim', 4]
  assert influence(*fit).status == 0
  assert 'fitted already' in influence(*fit).stdout
  other = influence(*fit, '--seed', 1)
  assert 'has seed 0, not 1; choose another --out' in other.error_line
  index = ['--index', tmp_path / 'i']
  project = ['project', *task, '--basis', tmp_path / 'b', *index]
  assert influence(*project).status == 0
  out = tmp_path / 'results' / 'top.parquet'
  query = ['--query_split', 'test[:7]', '--k', 3, '--out', out]
  shown = influence('topk', *task, *index, *query).stdout
  assert '... and 4 more queries' in shown
  table = pq.read_table(out)
  assert table.num_rows == 7 * 3 * 2
  assert {'query_id', 'kind', 'rank', 'score', 'id', 'label'} <= set(
    table.column_names
  )
  out = tmp_path / 'self.parquet'
  assert influence('self-influence', *index, '--k', 9, '--out', out).status == 0
  assert pq.read_table(out).num_rows == 9
  assert influence('verify', *index, '--json').json['sound'] is True
  assert influence('describe', *index, '--json').json['num_examples'] == 1497
  shown = influence('describe', '--basis', tmp_path / 'b')
  assert 'worst residual' in shown.stdout
