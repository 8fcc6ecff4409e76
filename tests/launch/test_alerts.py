"""Rules for Prometheus ask for what `reindex` writes, and can be read."""

import re

import promql_parser
import pytest
import yaml

from pipeline.index import choices
from tests.kit.devices import ROOT

GROUPS = yaml.safe_load((ROOT / 'launch/deploy/alerts.yaml').read_text())
RULES = {rule['alert']: rule for x in GROUPS['groups'] for rule in x['rules']}


@pytest.mark.parametrize('alert', RULES)
def test_rules_can_be_read(alert):
  rule = RULES[alert]
  promql_parser.parse(rule['expr'])
  assert rule['labels']['severity'] in ('page', 'ticket')
  assert rule['annotations'].keys() == {'summary', 'description'}


def test_metrics_are_those_of_a_run(influence, workdir, basis, tmp_path):
  (tmp_path / 'c.toml').write_text(
    f'task = "tests.kit.linear_task:make_task"\nbasis = "{basis}"\n'
    f'index = "{tmp_path / "i"}"\n[task_arg]\nworkdir = "{workdir}"\n'
  )
  file = tmp_path / 'metrics.prom'
  done = influence(
    *('reindex', '--config', tmp_path / 'c.toml', '--metrics_file', file)
  )
  assert done.status == 0, done.stderr
  written = set(
    re.findall(r'^(influence_\w+)\{', file.read_text(), re.MULTILINE)
  )
  asked = {
    name
    for rule in RULES.values()
    for name in re.findall(r'influence_\w+', rule['expr'])
  }
  assert len(asked) >= 5
  assert asked <= written
  assert 'command="reindex"' in file.read_text()


def test_half_of_what_stops_a_run_is_told():
  """The fraction in the rule goes with the default of the program."""
  [factor] = re.findall(r'> ([\d.]+) \*', RULES['InfluenceRejectsMore']['expr'])
  assert float(factor) == choices.MAX_REJECTED_FRACTION / 2
