"""Decoders from a directory as Hugging Face writes it.

    config.json   model.safetensors, or shards with their index

What is stored there is read as data; nothing of it is executed.
"""

from collections.abc import Mapping
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from influence_core import errors, parameter_selection, types
from launch.example_tasks import decoder, decoder_families as families
from pipeline.storage import files as storage
from pipeline.tasks import weight_files


def load_config(directory: str) -> decoder.DecoderConfig:
  """What the decoder in a directory is made of.

  Raises:
    errors.InputError: There is no config.json, or one of another architecture.
  """
  return configure(directory, _read_config(directory))


def load_parameters(directory: str, dtype: str = 'float32') -> types.Params:
  """Its weights, as `decoder.Decoder` takes them.

  Args:
    directory: local or gs://.
    dtype: 'float32' or 'bfloat16'.

  Raises:
    errors.InputError: Weights are missing, damaged, or of other shapes.
  """
  if dtype not in ('float32', 'bfloat16'):
    raise errors.InputError(f'dtype is {dtype!r}, expected float32 or bfloat16')
  content = _read_config(directory)
  config = configure(directory, content)
  path = weight_files.find(directory)
  if path is None:
    raise errors.InputError(
      f'{directory} has no model.safetensors, and no index of shards; save the '
      'model with safe_serialization=True'
    )
  reader = _Reader(
    weight_files.WeightFiles(path, None),
    families.FAMILIES[content['model_type']],
    config,
  )
  expected = jax.eval_shape(lambda: decoder.initialise(config))
  leaves = parameter_selection.all_parameters(expected)
  read = {
    path: reader.read(path, leaf.shape).astype(jnp.dtype(dtype))
    for path, leaf in leaves.items()
  }
  return parameter_selection.replace_parameters(expected, read)


def save(
  directory: str, content: Mapping[str, Any], params: types.Params
) -> None:
  """Writes a decoder as it is read: config.json and model.safetensors.

  Args:
    directory: local or gs://.
    content: of config.json, of a family whose weights are stored apart.
    params: as `decoder.Decoder` takes them.
  """
  family = families.FAMILIES[content['model_type']]
  stored: dict[str, np.ndarray] = {}
  for path, leaf in parameter_selection.all_parameters(params).items():
    module, _, name = path.rpartition('/')
    theirs = (
      family.output
      if module == 'params/output'
      else family.prefix + family.modules[module]
    )
    is_turned = name == 'kernel' and family.is_transposed
    layers = np.asarray(leaf) if '{}' in theirs else np.asarray(leaf)[None]
    for number, array in enumerate(layers):
      kind = 'bias' if name == 'bias' else 'weight'
      stored[f'{theirs.format(number)}.{kind}'] = np.ascontiguousarray(
        array.T if is_turned else array
      )
  for name, data in (
    ('model.safetensors', safetensors.numpy.save(stored)),
    ('config.json', json.dumps(content, indent=2).encode()),
  ):
    with storage.open_for_writing(storage.join(directory, name)) as file:
      file.write(data)


def _read_config(directory: str) -> Mapping[str, Any]:
  path = storage.join(directory, 'config.json')
  if not storage.exists(path):
    raise errors.InputError(
      f'{path} is missing; expected a directory as save_pretrained writes it'
    )
  try:
    content = json.loads(storage.read_bytes(path))
    kind = content['model_type']
  except (ValueError, LookupError, TypeError) as error:
    raise storage.DamagedFileError(
      f'{path} is no configuration of a model ({error!r}); write it again'
    ) from error
  if kind not in families.FAMILIES:
    raise errors.InputError(
      f'{path} is of the model_type {kind!r}, expected one of '
      f'{", ".join(families.FAMILIES)}; for another, write a task of your own'
    )
  return content


def configure(
  directory: str, content: Mapping[str, Any]
) -> decoder.DecoderConfig:
  """What the decoder with this config.json is made of.

  Args:
    directory: of it, for errors.
    content: of config.json, of a known model_type.

  Raises:
    errors.InputError: It is not implemented, or something is missing.
  """
  try:
    config = families.FAMILIES[content['model_type']].configure(content)
  except KeyError as error:
    raise errors.InputError(
      f'{directory}/config.json has no {error}, which a '
      f'{content["model_type"]} has'
    ) from error
  if config.activation not in decoder.ACTIVATIONS:
    raise errors.InputError(
      f'{directory}/config.json has the activation {config.activation!r}, '
      f'expected one of {", ".join(decoder.ACTIVATIONS)}'
    )
  return config


class _Reader:
  """Reads parameters of ours out of their files."""

  def __init__(
    self,
    files: weight_files.WeightFiles,
    family: families.Family,
    config: decoder.DecoderConfig,
  ):
    self._files = files
    self._family = family
    self._config = config
    self._names = set(parameter_selection.all_parameters(files.tree))

  def read(self, path: str, shape: tuple[int, ...]) -> np.ndarray:
    """One parameter, its layers stacked.

    Args:
      path: such as params/blocks/mlp/up/kernel.
      shape: that it must have.
    """
    module, _, leaf = path.rpartition('/')
    if module == 'params/output':
      name, num_layers = self._family.output, None
    else:
      name = self._family.modules[module]
      num_layers = self._config.num_layers if '{}' in name else None
      name = self._with_prefix(name)
    if num_layers is None:
      found = self._of_layer(module, name, leaf)
    else:
      found = np.stack(
        [
          self._of_layer(module, name.format(layer), leaf)
          for layer in range(num_layers)
        ]
      )
    if found.shape != shape:
      raise errors.InputError(
        f'{self._files.path} has {name} of shape {found.shape} for {path}, '
        f'expected {shape} by config.json'
      )
    return found

  def _with_prefix(self, name: str) -> str:
    """Weights of a model without an output are stored without prefix."""
    prefixed = self._family.prefix + name
    first = f'{prefixed.format(0)}/weight'.replace('.', '/')
    return prefixed if first in self._names else name

  def _of_layer(self, module: str, name: str, leaf: str) -> np.ndarray:
    theirs = f'{name}.{"bias" if leaf == "bias" else "weight"}'
    place = theirs.replace('.', '/')
    if place not in self._names:
      raise errors.InputError(
        f'{self._files.path} has no {theirs}; expected the weights that '
        'config.json says'
      )
    array = self._files.read(place)
    if self._family.split is not None and module in families.FUSED:
      return self._family.split(array, self._config)[
        families.FUSED.index(module)
      ]
    is_kernel = leaf == 'kernel'
    return array.T if is_kernel and self._family.is_transposed else array
