"""Runs the part of Google Cloud Workflows' syntax that our workflow uses."""

import base64
from collections.abc import Callable
import json
import re
import types
from typing import Any


class WorkflowError(Exception):
  """Raised by the workflow itself."""


class _Map(dict):
  """A map whose keys are attributes, as in expressions of Workflows."""

  def __getattr__(self, name):
    return self[name]


def _mapped(value: Any) -> Any:
  if isinstance(value, dict):
    return _Map({key: _mapped(item) for key, item in value.items()})
  if isinstance(value, list):
    return [_mapped(item) for item in value]
  return value


def run(
  workflow: dict,
  arguments: dict,
  http: Callable[[str, dict], dict],
  *,
  now: float,
) -> Any:
  """Runs `main`.

  Args:
    workflow: the parsed file.
    arguments: its only parameter.
    http: called with the method ('get', 'post') and the arguments of a call;
      returns the body of the answer.
    now: Unix time.

  Returns:
    What it returns; raises `WorkflowError` where it raises.
  """
  main = workflow['main']
  steps = [next(iter(step.items())) for step in main['steps']]
  places = {name: number for number, (name, _) in enumerate(steps)}
  assert len(places) == len(steps)
  known = {main['params'][0]: _mapped(arguments), **_functions(now)}
  number, num_steps = 0, 0
  while number < len(steps):
    num_steps += 1
    assert num_steps < 1000, 'it goes round for ever'
    _, step = steps[number]
    number += 1
    assert step.keys() <= {
      *('assign', 'call', 'args', 'result', 'switch', 'return', 'next')
    }
    for assignment in step.get('assign', ()):
      for name, value in assignment.items():
        known[name] = _value(value, known)
    if step.get('call') == 'sys.sleep':
      assert _value(step['args'], known)['seconds'] > 0
    elif 'call' in step:
      library, method = step['call'].split('.')
      assert library == 'http'
      answer = http(method, _value(step['args'], known))
      if 'result' in step:
        known[step['result']] = _mapped({'body': answer})
    for case in step.get('switch', ()):
      if _value(case['condition'], known):
        if 'raise' in case:
          raise WorkflowError(_value(case['raise'], known))
        number = places[case['next']]
        break
    if 'return' in step:
      return _value(step['return'], known)
  return None


def _value(value: Any, known: dict) -> Any:
  if isinstance(value, dict):
    return {name: _value(item, known) for name, item in value.items()}
  if isinstance(value, list):
    return [_value(item, known) for item in value]
  if isinstance(value, str) and (found := re.fullmatch(r'\$\{(.*)\}', value)):
    # Its expressions are Python's, as far as they are used here.
    return eval(found[1], {'__builtins__': {}}, known)
  return value


def _functions(now: float) -> dict[str, Any]:
  return {
    'len': len,
    'int': int,
    'string': str,
    'default': lambda value, other: other if value is None else value,
    'map': types.SimpleNamespace(get=lambda values, key: values.get(key)),
    'sys': types.SimpleNamespace(now=lambda: now),
    'json': types.SimpleNamespace(encode=lambda x: json.dumps(x).encode()),
    'base64': types.SimpleNamespace(
      encode=lambda data: base64.b64encode(data).decode()
    ),
  }
