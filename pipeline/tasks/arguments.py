"""Texts of a command line as the arguments of a task function."""

from collections.abc import Callable, Mapping, Sequence
import inspect
import sys
import types as python_types
import typing
from typing import Any

from influence_core import errors

_NONE = 'none'
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def convert(
  import_path: str, function: Callable, arguments: Mapping[str, str]
) -> inspect.BoundArguments:
  """Arguments in the types that the function's annotations name.

  See `task.TaskReference` for the types that are known.

  Args:
    import_path: names the function in errors.
    function: that makes the task.
    arguments: texts by name.

  Raises:
    errors.InputError: The function takes no such argument, needs one more, or
      a text is nothing of its type.
  """
  parameters = inspect.signature(function).parameters
  named = [
    name for name, one in parameters.items() if one.kind not in _VARIADIC
  ]
  rest = next((x for x in parameters.values() if x.kind is x.VAR_KEYWORD), None)
  converted = {}
  for name, text in arguments.items():
    parameter = parameters[name] if name in named else rest
    if parameter is None:
      raise errors.InputError(
        f'{import_path} takes no argument {name!r}; it takes '
        f'{", ".join(named) or "none"}'
      )
    annotation = _resolved(function, parameter.annotation)
    converted[name] = convert_text(name, text, annotation)
  missing = [
    name
    for name in named
    if parameters[name].default is inspect.Parameter.empty
    and name not in converted
  ]
  if missing:
    raise errors.InputError(
      f'{import_path} needs {", ".join(missing)}; pass '
      f'--task_arg {missing[0]}=VALUE'
    )
  return _bound(inspect.signature(function), converted)


def _bound(
  signature: inspect.Signature, values: Mapping[str, Any]
) -> inspect.BoundArguments:
  """Binds by name, also what the function takes by position only."""
  left = dict(values)
  positional = []
  for name, parameter in signature.parameters.items():
    if parameter.kind is not parameter.POSITIONAL_ONLY or name not in left:
      break
    positional.append(left.pop(name))
  return signature.bind(*positional, **left)


def _resolved(function: Callable, annotation: Any) -> Any:
  """An annotation that is text as what it names; text if that is not there.

  Under `from __future__ import annotations` all are texts, and what was
  imported for type checkers alone does not exist.
  """
  if not isinstance(annotation, str):
    return annotation
  inner = inspect.unwrap(function)
  names = getattr(inner, '__globals__', None)
  if names is None:  # A class, or another callable object.
    names = vars(sys.modules.get(inner.__module__, sys))
  try:
    return eval(annotation, dict(names))
  except Exception:  # Whatever evaluating some text may raise.
    return str


def convert_text(name: str, text: str, annotation: Any) -> Any:
  """The text in the first type that an annotation allows and that takes it.

  Args:
    name: of the argument, for errors.
    text: as typed.
    annotation: see `task.TaskReference` for the types that are known.

  Raises:
    errors.InputError: It is nothing of these types.
  """
  choices = _choices(annotation)
  for choice in choices:
    try:
      return _as_type(text, choice)
    except ValueError:
      continue
  raise errors.InputError(
    f'{name} is {text!r}, expected {" or ".join(map(_described, choices))}'
  )


def _choices(annotation: Any) -> Sequence[Any]:
  """What an annotation allows, text last: everything is text."""
  origin = typing.get_origin(annotation)
  if origin is typing.Annotated:
    return _choices(typing.get_args(annotation)[0])
  if origin in (typing.Union, python_types.UnionType):
    found = [
      choice
      for member in typing.get_args(annotation)
      for choice in _choices(member)
    ]
    return sorted(found, key=lambda choice: choice is str)
  if origin is typing.Literal:
    return [typing.Literal[value] for value in typing.get_args(annotation)]
  known = (bool, int, float, python_types.NoneType)
  return [annotation if annotation in known else str]


def _as_type(text: str, choice: Any) -> Any:
  """The text as one of the choices; ValueError if it is none."""
  if typing.get_origin(choice) is typing.Literal:
    [value] = typing.get_args(choice)
    if text in (str(value), getattr(value, 'value', None)):
      return value
    raise ValueError
  if choice is python_types.NoneType:
    if text.lower() == _NONE:
      return None
    raise ValueError
  if choice is bool:
    if text.lower() in ('true', 'false'):
      return text.lower() == 'true'
    raise ValueError
  return choice(text)


def _described(choice: Any) -> str:
  if typing.get_origin(choice) is typing.Literal:
    return str(typing.get_args(choice)[0])
  if choice is bool:
    return 'true or false'
  return _NONE if choice is python_types.NoneType else choice.__name__
