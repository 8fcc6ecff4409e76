"""What is known of a basis, as earlier versions and others wrote it."""

import pytest

from pipeline.bases import stored_basis
from pipeline.storage import files as storage

REPORT = {
  'residuals': [0.1],
  'orthogonality_error': 0.0,
  'spectrum': [1.0],
  'negative_mass': 0.0,
  'num_iterations': 5,
  'broke_down': False,
  'sample_size': 10,
  'seconds': 1.0,
  'trace': {
    'trace': 2.0,
    'standard_error': 0.1,
    'captured': 0.5,
    'num_probes': 8,
  },
  'second_sample': None,
  'doubled_sample': None,
}


def test_reports_of_earlier_versions_have_no_mean_curvature():
  report = stored_basis._report(REPORT, 'basis.json')
  assert report.trace.mean_curvature is None
  assert report.num_products == 13
  without = stored_basis._report({**REPORT, 'trace': None}, 'basis.json')
  assert without.num_products == 5


def test_report_of_something_else_is_refused():
  with pytest.raises(storage.DamagedFileError, match=r'residuals\.0 is .*far'):
    stored_basis._report({**REPORT, 'residuals': ['far']}, 'basis.json')
