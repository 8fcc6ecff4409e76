"""Fields of a task that are functions of a module, made functions of arrays."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any


def pure(
  fields: Mapping[str, Any],
  make_pure: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> dict[str, Any]:
  """The fields with functions of parameters in place of the module.

  Args:
    fields: of a `Task`.
    make_pure: a function of a module -> the same of its parameters.
  """
  changed = dict(fields)
  for name in ('measurement', 'predict', 'token_losses'):
    if function := fields.get(name):
      changed[name] = make_pure(function)
  if split := fields.get('split_loss'):
    outputs = make_pure(split.outputs)
    changed['split_loss'] = dataclasses.replace(split, outputs=outputs)
  return changed
