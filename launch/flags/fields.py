"""Flags made of dataclasses: an option is declared once, where it is used.

A field is a flag with its name, type and default; the text of --help is what
the docstring of the class says of the attribute. What the flags were given
becomes the dataclass again, as one argument of the command.
"""

import argparse
from collections.abc import Callable, Mapping
import dataclasses
import difflib
import inspect
import re
import types as python_types
import typing
from typing import Any, NamedTuple, NoReturn, Protocol

_ATTRIBUTE = re.compile(
  r'^  (\w+): (.*?)(?=^  \w+: |\Z)', re.MULTILINE | re.DOTALL
)
# Flags that may have been meant: --where is no --verbose.
_LIKENESS = 0.7


class Flag(NamedTuple):
  """How the flag of a field differs from the field.

  Attributes:
    name: without --; None for that of the field.
    parse: text to value; None for the type of the field.
    metavar: stands for the value in --help.
  """

  name: str | None = None
  parse: Callable[[str], Any] | None = None
  metavar: str | None = None


class TakesFlags(Protocol):
  """Flags that become one argument of a command."""

  @property
  def name(self) -> str:
    """Of the argument."""
    ...

  def take(self, values: dict[str, Any]) -> Any:
    """The argument, of flags that are taken out of `values`."""
    ...


class CommandParser(argparse.ArgumentParser):
  """Tells an error in one line, with the flag that may have been meant.

  Attributes:
    groups: whose flags become one argument each.
  """

  def __init__(self, **kwargs: Any):
    super().__init__(
      allow_abbrev=False,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      **kwargs,
    )
    self.groups: list[TakesFlags] = []

  def error(self, message: str) -> NoReturn:
    self.exit(2, f'{self.prog}: error: {message}; see {self.prog} --help\n')

  def suggestion(self, argument: str) -> str:
    """' (did you mean --x?)' when a known flag is close, else ''."""
    name = argument.split('=', 1)[0]
    close = difflib.get_close_matches(
      name, self._option_string_actions, 1, _LIKENESS
    )
    return f' (did you mean {close[0]}?)' if close else ''


@dataclasses.dataclass(frozen=True)
class Group:
  """Flags that become one argument of a command.

  Attributes:
    name: of the argument.
    made_of: dataclass; fields that are dataclasses have flags of their own.
    flags: what differs, by field.
    left_out: fields without a flag.
  """

  name: str
  made_of: Any
  flags: Mapping[str, Flag] = dataclasses.field(default_factory=dict)
  left_out: tuple[str, ...] = ()

  def add_to(self, parser: CommandParser) -> None:
    """Adds the flags, and has `take` called when they were parsed."""
    self._add_flags(parser)
    parser.groups.append(self)

  def take(self, values: dict[str, Any]) -> Any:
    """The object, of the flags that are taken out of `values`.

    Raises:
      errors.InputError: A value is out of range.
    """
    return self.made_of(
      **{
        field.name: inner.take(values)
        if (inner := self._inner(field))
        else values.pop(self._flag_name(field))
        for field in self._fields()
      }
    )

  def _fields(self) -> list[dataclasses.Field]:
    return [
      field
      for field in dataclasses.fields(self.made_of)
      if field.name not in self.left_out
    ]

  def _flag_name(self, field: dataclasses.Field) -> str:
    return self.flags.get(field.name, Flag()).name or field.name

  def _inner(self, field: dataclasses.Field) -> 'Group | None':
    kind = typing.get_type_hints(self.made_of)[field.name]
    if not dataclasses.is_dataclass(kind):
      return None
    return Group(field.name, kind, self.flags, self.left_out)

  def _add_flags(self, parser: CommandParser) -> None:
    texts, hints = _texts(self.made_of), typing.get_type_hints(self.made_of)
    for field in self._fields():
      if inner := self._inner(field):
        inner._add_flags(parser)
        continue
      flag = self.flags.get(field.name, Flag())
      settings: dict[str, Any] = {'default': field.default}
      if field.default is dataclasses.MISSING:
        settings = {'required': True}
      settings |= _of_type(hints[field.name])
      if flag.parse:
        settings['type'] = flag.parse
      if flag.metavar:
        settings['metavar'] = flag.metavar
      text = texts[field.name].replace('%', '%%')
      if not isinstance(settings.get('default'), (bool, type(None))):
        text += ' (default: %(default)s)'
      parser.add_argument(f'--{self._flag_name(field)}', help=text, **settings)


def _of_type(hint: Any) -> dict[str, Any]:
  """What argparse is told of a type."""
  if isinstance(hint, python_types.UnionType):
    [hint] = [x for x in typing.get_args(hint) if x is not type(None)]
  if typing.get_origin(hint) is typing.Literal:
    return {'choices': typing.get_args(hint)}
  if hint is bool:
    return {'action': 'store_true'}
  return {} if hint is str else {'type': hint}


def _texts(made_of: Any) -> dict[str, str]:
  """What the docstring of a class says of each attribute."""
  doc = inspect.getdoc(made_of) or ''
  listed = doc.partition('Attributes:\n')[2]
  return {
    name: ' '.join(text.split()).rstrip('.').replace('`', '')
    for name, text in _ATTRIBUTE.findall(listed)
  }


class NamedValues(argparse.Action):
  """NAME=VALUE of a flag that may be repeated, as a dict."""

  def __init__(self, *arguments: Any, **more: Any):
    super().__init__(*arguments, **{'default': {}, **more})

  def __call__(self, parser, namespace, values, option_string=None) -> None:
    name, separator, value = values.partition('=')
    if not (name and separator):
      parser.error(f'{option_string} is {values!r}, expected NAME=VALUE')
    given = {**getattr(namespace, self.dest), name: value}
    setattr(namespace, self.dest, given)
