"""Marks of single cases of a test."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_where(values: Iterable[Any], slow: Collection[Any]) -> list:
  """Values for `pytest.mark.parametrize`, some of them marked as slow."""
  values = list(values)
  assert set(slow) <= set(values)
  return [
    pytest.param(value, marks=pytest.mark.slow) if value in slow else value
    for value in values
  ]
