"""Containers: the versions in them are those that are tested."""

from importlib import metadata
import re
import sys

import apache_beam
from packaging import requirements, version
import pytest

from launch.cloud import pinned_requirements
from tests.conftest import ROOT

DEPLOY = ROOT / 'launch' / 'deploy'


def pins() -> dict[str, str]:
  lines = (DEPLOY / 'constraints.txt').read_text().splitlines()
  return dict(line.split('==') for line in lines if not line.startswith('#'))


def test_all_that_is_needed_is_pinned():
  pytest.importorskip('google.cloud.dataflow_v1beta3')
  missing = pinned_requirements.closure().keys() - pins().keys()
  assert not missing, 'run python -m launch.cloud.pinned_requirements'


def test_pins_are_what_setup_allows():
  found = metadata.requires(pinned_requirements.PACKAGE)
  needs = [requirements.Requirement(text) for text in found]
  for need in needs:
    pinned = pins().get(need.name.lower().replace('_', '-'))
    if pinned is not None:
      assert need.specifier.contains(pinned), need


def test_container_has_the_same_python_and_beam():
  text = (DEPLOY / 'Containerfile').read_text()
  arguments = dict(re.findall(r'ARG (\w+)=(\S+)', text))
  assert arguments['BEAM_VERSION'] == pins()['apache-beam']
  found = version.parse(apache_beam.__version__)
  pinned = version.parse(pins()['apache-beam'])
  assert (found.major, found.minor) == (pinned.major, pinned.minor)
  # Python of this run may be newer; the container's must be one we support.
  setup = (ROOT / 'setup.py').read_text()
  least = re.search(r"python_requires='>=([\d.]+)'", setup)[1]
  wanted = version.parse(arguments['PYTHON_VERSION'])
  assert version.parse(least) <= wanted
  assert wanted <= version.parse('.'.join(map(str, sys.version_info[:2])))


def test_every_variant_is_an_extra():
  setup = (ROOT / 'setup.py').read_text()
  for variant in ('cpu', 'cuda', 'tpu', 'dataflow'):
    assert f"'{variant}': [" in setup
