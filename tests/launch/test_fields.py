"""Flags of dataclasses: names, types, defaults and texts are those there."""

import dataclasses
from typing import Literal

import pytest

from influence_core import errors
from launch.flags import fields


@dataclasses.dataclass(frozen=True)
class Inner:
  """Some.

  Attributes:
    kind: which
      of two.
    hidden: not for everybody.
  """

  kind: Literal['a', 'b'] = 'a'
  hidden: str = 'x'


@dataclasses.dataclass(frozen=True)
class Outer:
  """More.

  Attributes:
    split: e.g. 'test[:10%]'.
    count: how many; if not given, all.
    size: in `units`.
    is_on: whether.
    inner: of another class.
  """

  split: str
  count: int | None = None
  size: float = 0.5
  is_on: bool = False
  inner: Inner = dataclasses.field(default_factory=Inner)

  def __post_init__(self):
    if self.size > 9:
      raise errors.InputError(f'size is {self.size}, expected up to 9')


def parse(*argv):
  parser = fields.CommandParser(prog='p')
  group = fields.Group(
    'what',
    Outer,
    {'size': fields.Flag('big', float, 'SIZE')},
    left_out=('hidden',),
  )
  parser.add(group)
  values = vars(parser.parse_args(argv))
  [taken] = parser.groups
  found = taken.take(values)
  assert values == {}
  return found, ' '.join(parser.format_help().split())


def test_fields_are_flags():
  found, text = parse('--split', 's')
  assert found == Outer('s')
  for line in (
    "--split SPLIT e.g. 'test[:10%]'",
    '--count N how many; if not given, all --big SIZE',
    '--big SIZE in units (default: 0.5)',
    '--kind {a,b} which of two (default: a)',
  ):
    assert line in text
  assert 'hidden' not in text


def test_values_have_the_types_of_fields():
  flags = ['--count', '3', '--big', '0', '--is_on', '--kind', 'b']
  found, _ = parse('--split', 's', *flags)
  assert found == Outer('s', 3, 0.0, True, Inner('b'))


@pytest.mark.parametrize('wrong', [['--count', 'x'], ['--kind', 'c'], []])
def test_mistakes_end_the_program(wrong, capsys):
  with pytest.raises(SystemExit):
    parse(*wrong, *(['--split', 's'] if wrong else []))
  assert 'p: error: ' in capsys.readouterr().err
  with pytest.raises(errors.InputError, match=r'size is 10\.0'):
    parse('--split', 's', '--big', '10')


def test_named_values_add_up():
  parser = fields.CommandParser(prog='p')
  parser.add_argument('--x', action=fields.NamedValues)
  assert parser.parse_args([]).x == {}
  assert parser.parse_args(['--x', 'a=1', '--x', 'b==']).x == {
    'a': '1',
    'b': '=',
  }
  assert parser.parse_args([]).x == {}
