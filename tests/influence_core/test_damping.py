import numpy as np
import pytest

from influence_core import damping as damping_lib, errors
from influence_core.damping import Damping


@pytest.mark.parametrize(
  ('given', 'expected'),
  [
    (0.5, Damping(0.5)),
    ('0.5', Damping(0.5)),
    ('0.5x', Damping(0.5, is_relative=True)),
    ('0x', Damping(0.0, is_relative=True)),
    (None, damping_lib.OF_LAYERS),
  ],
)
def test_numbers_alone_or_with_x(given, expected):
  assert damping_lib.parse(given, damping_lib.OF_LAYERS) == expected


@pytest.mark.parametrize(
  'given', [-1.0, '-1x', 'nanx', 'inf', 'x', '0.1 of it', '1xx']
)
def test_anything_else_is_refused(given):
  with pytest.raises(errors.InputError, match='expected a finite number >= 0'):
    damping_lib.parse(given)


def test_amounts():
  means = np.array([1.0, 3.0])
  np.testing.assert_array_equal(
    Damping(0.5, is_relative=True).amount(means), means / 2
  )
  assert Damping(0.5).amount(means) == 0.5
  assert Damping(0.5, is_relative=True).of_model(3.0) == 1.5
  # What is not asked for need not be known, or make sense.
  assert Damping(0.5).of_model(None) == Damping(0.5).of_model(-1.0) == 0.5


@pytest.mark.parametrize(
  ('mean', 'message'),
  [
    (None, 'damping is 0.1x, but the mean curvature is not known'),
    (-2.0, 'mean curvature is -2, expected at least 0'),
    (float('nan'), 'mean curvature is nan'),
  ],
)
def test_relative_to_nothing_that_could_be_added(mean, message):
  with pytest.raises(errors.InputError, match=message):
    damping_lib.OF_LAYERS.of_model(mean)
