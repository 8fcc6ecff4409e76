"""How large a batch a call takes: as many as are useful, and fit."""

import jax
import pytest

from influence_core import errors
from influence_core.devices import program as device_program

PREFERRED = 128
PLENTY = 1 << 40


def choose(
  example_bytes, *, workspace_bytes=PLENTY, constant_bytes=1000, **options
):
  """The micro-batch, where an example has so many bytes of temporaries."""

  def compile_program(micro_batch):
    num_bytes = constant_bytes + example_bytes * micro_batch
    return device_program.Program(micro_batch, None, num_bytes)

  settings = {'batch_size': None, 'num_examples': None, **options}
  found = device_program.choose_program(
    compile_program, workspace_bytes, preferred=PREFERRED, **settings
  )
  assert found.temporary_bytes <= workspace_bytes
  return found.micro_batch


def test_calls_of_large_examples_are_of_the_preferred_size():
  assert choose(1 << 20) == PREFERRED


def test_calls_of_small_examples_are_larger():
  """A call from Python takes as long as hundreds of them."""
  assert PREFERRED < choose(20_000) < choose(4000) == choose(4)


def test_calls_of_small_examples_have_one_size():
  sizes = [choose(4000, num_examples=x) for x in (100, 128, 129, 1024, 1025)]
  assert sizes == [100, 128, 129, 1024, 513]


def test_calls_of_small_examples_fit():
  assert choose(4000, workspace_bytes=4000 * 200) == PREFERRED
  assert choose(4000, workspace_bytes=4000 * 100) == 64


def test_a_given_size_is_taken_or_refused():
  size = 3 * jax.local_device_count()
  assert choose(4, batch_size=size) == 3
  with pytest.raises(errors.InputError, match='1,000 are left beside'):
    choose(4, batch_size=size, workspace_bytes=1000)


def test_no_more_are_taken_than_is_useful():
  mega = 1 << 20
  assert choose(mega, useful_bytes=20 * mega) == 16
  assert choose(30 * mega, useful_bytes=20 * mega) == 1


def test_what_any_batch_takes_makes_none_smaller():
  """The gradient of a large model is there for one example, too."""
  mega = 1 << 20
  large = {'constant_bytes': 100 * mega, 'useful_bytes': 20 * mega}
  assert choose(mega, **large) == 16
  assert choose(mega, workspace_bytes=109 * mega, **large) == 8
  with pytest.raises(errors.InputError, match='one example needs 105,906,176'):
    choose(mega, workspace_bytes=100 * mega, **large)
