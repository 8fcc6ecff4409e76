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

  def add_flags(self, parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    ...

  def take(self, values: dict[str, Any]) -> Any:
    """The argument, of flags that are taken out of `values`."""
    ...


class Part(TakesFlags, Protocol):
  """Flags that can be one field of a `Group`."""

  def as_flags(self, argument: Any) -> dict[str, Any]:
    """The other way round: what each flag is for this argument."""
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

  def add(self, group: TakesFlags) -> None:
    """Adds flags that become one argument."""
    group.add_flags(self)
    self.groups.append(group)

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
  """The fields of a dataclass as flags.

  Attributes:
    name: of the argument.
    made_of: dataclass; fields that are dataclasses have flags of their own.
    flags: what differs, by field.
    left_out: fields without a flag.
    parts: flags of a field that are not those of its type, by field.
    only_given: whether values hold the flags that were given alone, so that
      `given` can tell.
  """

  name: str
  made_of: Any
  flags: Mapping[str, Flag] = dataclasses.field(default_factory=dict)
  left_out: tuple[str, ...] = ()
  parts: Mapping[str, Part] = dataclasses.field(default_factory=dict)
  only_given: bool = False

  def add_flags(self, parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each field."""
    texts, hints = _texts(self.made_of), typing.get_type_hints(self.made_of)
    for field in self._fields():
      if part := self._part(field):
        part.add_flags(parser)
        continue
      flag = self.flags.get(field.name, Flag())
      settings = _of_type(hints[field.name])
      if is_required(field):
        settings['required'] = True
      elif field.default is not dataclasses.MISSING:
        settings['default'] = field.default
      if flag.parse:
        settings['type'] = flag.parse
      if flag.metavar:
        settings['metavar'] = flag.metavar
      text = texts[field.name].replace('%', '%%')
      if _is_worth_saying(settings.get('default')):
        text += f' (default: {settings["default"]})'
      if self.only_given:
        settings['default'] = argparse.SUPPRESS
      parser.add_argument(f'--{self._flag_name(field)}', help=text, **settings)

  def take(self, values: dict[str, Any]) -> Any:
    """The object, of the flags that are taken out of `values`.

    Raises:
      errors.InputError: A value is out of range.
    """
    return self.made_of(
      **{
        field.name: part.take(values)
        if (part := self._part(field))
        else _immutable(values.pop(self._flag_name(field)))
        for field in self._fields()
        if not self.only_given or self._flag_name(field) in values
      }
    )

  def given(self, values: Mapping[str, Any]) -> list[str]:
    """Fields whose flags were given, with `only_given`."""
    return [x.name for x in self._fields() if self._flag_name(x) in values]

  def as_flags(self, argument: Any) -> dict[str, Any]:
    """What each flag is for an object."""
    found: dict[str, Any] = {}
    for field in self._fields():
      value = getattr(argument, field.name)
      part = self._part(field)
      found |= part.as_flags(value) if part else {self._flag_name(field): value}
    return found

  def _fields(self) -> list[dataclasses.Field]:
    return [
      field
      for field in dataclasses.fields(self.made_of)
      if field.name not in self.left_out
    ]

  def _flag_name(self, field: dataclasses.Field) -> str:
    return self.flags.get(field.name, Flag()).name or field.name

  def _part(self, field: dataclasses.Field) -> Part | None:
    if field.name in self.parts:
      return self.parts[field.name]
    kind = typing.get_type_hints(self.made_of)[field.name]
    if not dataclasses.is_dataclass(kind):
      return None
    return Group(field.name, kind, self.flags, self.left_out)


@dataclasses.dataclass(frozen=True)
class Rest:
  """What follows -- on the command line, as a field of a `Group`.

  Attributes:
    name: by which the table of commands names it.
  """

  name: str

  def add_flags(self, parser: argparse.ArgumentParser) -> None:
    """It has none."""

  def take(self, values: dict[str, Any]) -> tuple[str, ...]:
    return tuple(values.pop(self.name))

  def as_flags(self, argument: Any) -> dict[str, Any]:
    return {self.name: argument}


def _immutable(value: Any) -> Any:
  return tuple(value) if isinstance(value, list) else value


def is_required(field: dataclasses.Field) -> bool:
  """Whether a field has no default."""
  defaults = (field.default, field.default_factory)
  return all(x is dataclasses.MISSING for x in defaults)


def without_none(hint: Any) -> Any:
  """The type X of a field that is X or None; other unions as they are."""
  if not isinstance(hint, python_types.UnionType):
    return hint
  inner = [x for x in typing.get_args(hint) if x is not type(None)]
  return inner[0] if len(inner) == 1 else hint


def _is_worth_saying(default: Any) -> bool:
  """Whether a default tells more than that the flag may be left out."""
  return not isinstance(default, (bool, type(None), dict, tuple)) and (
    default != ''
  )


def _of_type(hint: Any) -> dict[str, Any]:
  """What argparse is told of a type."""
  hint = without_none(hint)
  if typing.get_origin(hint) is typing.Literal:
    return {'choices': typing.get_args(hint)}
  if hint is bool:
    return {'action': 'store_true'}
  if typing.get_origin(hint) is tuple:
    return {'nargs': '+', 'metavar': 'TEXT'}
  if typing.get_origin(hint) is Mapping:
    return {'action': NamedValues, 'metavar': 'NAME=VALUE'}
  return number(hint) if hint in (int, float) else {}


def number(kind: type[int] | type[float]) -> dict[str, Any]:
  """What argparse is told of a number."""
  return {'type': kind, 'metavar': 'N' if kind is int else 'X'}


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
