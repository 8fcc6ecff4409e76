"""Names in plots; what they show is looked at."""

from launch import plots


def test_names_are_what_differs():
  paths = ['/r/model/arnoldi/index', '/r/model/ekfac/index']
  assert plots.short_names(paths) == ['arnoldi', 'ekfac']
  assert plots.short_names(['/r/a/index', '/r/b']) == ['a/index', 'b']
  assert plots.short_names(['gs://b/one', 'gs://b/two']) == ['one', 'two']
  assert plots.short_names(['/r/a/index']) == ['index']


def test_labels_of_a_plot_are_in_it():
  series = {'score': [plots.Interval('arnoldi', 0.5, 0.4, 0.6)]}
  page = plots.intervals(series, title='all of it', joined=True).decode()
  for text in ('<svg', 'score', 'arnoldi', 'all of it'):
    assert text in page
