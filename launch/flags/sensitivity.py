"""Options of an influence that can be varied, and the values to try."""

from collections.abc import Mapping, Sequence
import dataclasses
import typing
from typing import Any, NamedTuple

from influence_core import damping, errors
from influence_core.scores.options import ScoreOptions
from pipeline.bases import fit_basis_config
from pipeline.tasks import arguments as task_arguments

# What is tried where nothing else is asked for. What damping and numbers of
# pairs are sensible depends on the model: those are of MNIST-sized ones.
DEFAULT_KNOBS: dict[str, tuple[str, ...]] = {
  'projection_dim': ('5', '10', '20', '50'),
  'num_iterations': ('60', '100', '200'),
  'sample_size': ('128', '512', '2048'),
  'curvature': ('hessian', 'gauss_newton'),
  'negative_eigenvalues': ('drop', 'abs', 'clip'),
  'damping': ('0', '0.0001', '0.001', '0.01', '0.1'),
  'normalization': ('none', 'gradient_norm', 'cosine'),
}
# Those of scores come first: they need no other basis.
_CLASSES = (ScoreOptions, fit_basis_config.FitBasisConfig)
_PATHS = 'parameter_paths'


class Setting(NamedTuple):
  """All that scores depend on besides the model.

  Attributes:
    config: of the basis.
    options: of the scores.
    parameter_paths: instead of the task's; None for those.
  """

  config: fit_basis_config.FitBasisConfig
  options: ScoreOptions
  parameter_paths: tuple[str, ...] | None = None

  def with_fixed(self, values: Mapping[str, str]) -> 'Setting':
    """The setting with other values, as typed, by name.

    Of projection_dim, which both have, the one of the basis is meant.

    Raises:
      errors.InputError: see `with_value`.
    """
    config_class = fit_basis_config.FitBasisConfig
    of_basis = {
      name: _converted(config_class, name, text)
      for name, text in values.items()
      if name in _names(config_class)
    }
    config = dataclasses.replace(self.config, **of_basis)
    setting = self._replace(config=config)
    for name, text in values.items():
      if name not in of_basis:
        setting = setting.with_value(name, text)
    return setting

  @property
  def basis_key(self) -> tuple[Any, ...]:
    """What a basis depends on; the same where one has the pairs of another."""
    config = self.config
    if config.num_iterations is not None and config.max_vectors is None:
      config = dataclasses.replace(config, projection_dim=1)
    return config, self.parameter_paths

  def with_value(self, knob: str, text: str) -> 'Setting':
    """The setting with another value of a knob.

    Raises:
      errors.InputError: There is no such knob, or it cannot have this value.
    """
    if knob == _PATHS:
      return self._replace(parameter_paths=(text,))
    if knob in _names(ScoreOptions):
      value = _converted(ScoreOptions, knob, text)
      options = dataclasses.replace(self.options, **{knob: value})
      # Policies for negative eigenvalues show only where there are some.
      keep = self.config.keep_negative or knob == 'negative_eigenvalues'
      config = dataclasses.replace(self.config, keep_negative=keep)
      if damping.parse(options.damping).is_relative:
        least = fit_basis_config.FitBasisConfig.num_trace_probes
        probes = max(config.num_trace_probes, least)
        config = dataclasses.replace(config, num_trace_probes=probes)
      return self._replace(options=options, config=config)
    if knob in _names(fit_basis_config.FitBasisConfig):
      value = _converted(fit_basis_config.FitBasisConfig, knob, text)
      config = dataclasses.replace(self.config, **{knob: value})
      return self._replace(config=config)
    known = sorted({name for x in _CLASSES for name in _names(x)} | {_PATHS})
    raise errors.InputError(
      f'knob is {knob!r}, expected one of {", ".join(known)}'
    )


def values_of(knobs: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
  """Values of each knob as typed, VALUE,VALUE,...; the defaults for none."""
  typed = {name: tuple(text.split(',')) for name, text in knobs.items()}
  return typed or DEFAULT_KNOBS


def settings(
  base: Setting, knobs: Mapping[str, tuple[str, ...]]
) -> list[tuple[str, str, Setting]]:
  """(knob, value, setting) of every value, all else as in `base`.

  Raises:
    errors.InputError: see `Setting.with_value`.
  """
  return [
    (knob, text, base.with_value(knob, text))
    for knob, texts in knobs.items()
    for text in texts
  ]


def share_bases(
  settings: Sequence[tuple[str, str, Setting]],
) -> list[tuple[str, str, Setting]]:
  """The same with one basis for settings that differ in the number of pairs.

  The leading pairs of an iteration are the same however many are kept, but
  where their number decides when it ends or starts again.
  """
  largest: dict[Any, int] = {}
  for _, _, setting in settings:
    dim = setting.config.projection_dim
    largest[setting.basis_key] = max(dim, largest.get(setting.basis_key, 0))
  shared = []
  for knob, text, setting in settings:
    dim, all_pairs = setting.config.projection_dim, largest[setting.basis_key]
    if dim < all_pairs:
      dims = [x for x in (setting.options.projection_dim, dim) if x]
      setting = setting._replace(
        config=dataclasses.replace(setting.config, projection_dim=all_pairs),
        options=dataclasses.replace(setting.options, projection_dim=min(dims)),
      )
    shared.append((knob, text, setting))
  return shared


def _names(config_class: Any) -> set[str]:
  return {field.name for field in dataclasses.fields(config_class)}


def _converted(config_class: Any, name: str, text: str) -> Any:
  hint = typing.get_type_hints(config_class)[name]
  return task_arguments.convert_text(name, text, hint)
