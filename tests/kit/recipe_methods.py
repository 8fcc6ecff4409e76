"""Recipes with fewer methods than they have."""

from collections.abc import Collection
from typing import Any

import pytest


def leave_out(
  monkeypatch: pytest.MonkeyPatch, recipe: Any, names: Collection[str]
) -> None:
  """Methods whose commands are tested by themselves, and add minutes here."""
  whole = type(recipe).methods.fget
  few = property(lambda own: [x for x in whole(own) if x.name not in names])
  monkeypatch.setattr(type(recipe), 'methods', few)
