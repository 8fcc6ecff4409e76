"""Published decoders, against logits of the reference implementation.

`tests/kit/reference_decoders.py` made what they are compared with.
"""

import json
from pathlib import Path
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from influence_core import errors
from launch.example_tasks import decoder, pretrained_decoder

MODELS = Path(__file__).parent / 'decoders'
NAMES = sorted(path.name for path in MODELS.iterdir())


def logits_of(directory, tokens, **how):
  config = pretrained_decoder.load_config(str(directory))
  params = pretrained_decoder.load_parameters(str(directory), **how)
  return jax.jit(decoder.Decoder(config).apply)(params, tokens)


@pytest.mark.parametrize('name', NAMES)
def test_logits_are_those_of_the_reference(name):
  with np.load(MODELS / name / 'logits.npz') as expected:
    found = logits_of(MODELS / name, expected['tokens'])
    # float32 with sums in another order.
    np.testing.assert_allclose(found, expected['logits'], atol=1e-4)


def test_bfloat16_is_near():
  with np.load(MODELS / 'llama' / 'logits.npz') as expected:
    found = logits_of(MODELS / 'llama', expected['tokens'], dtype='bfloat16')
    assert found.dtype == jnp.float32
    # 8 bits of mantissa through two layers.
    np.testing.assert_allclose(found, expected['logits'], atol=0.1)


def test_packed_documents_do_not_see_each_other():
  config = pretrained_decoder.load_config(str(MODELS / 'pythia'))
  params = pretrained_decoder.load_parameters(str(MODELS / 'pythia'))
  model = decoder.Decoder(config, is_rematerialised=True)
  generator = np.random.default_rng(0)
  one, other = generator.integers(0, 64, (2, 1, 6))
  packed = model.apply(
    params,
    np.concatenate([one, other], axis=1),
    np.array([[*range(6), *range(6)]]),
    np.array([[1] * 6 + [2] * 6]),
  )
  for tokens, own in ((one, packed[:, :6]), (other, packed[:, 6:])):
    alone = model.apply(params, tokens)
    np.testing.assert_allclose(own, alone, atol=1e-5)


@pytest.fixture(name='copy')
def fixture_copy(tmp_path):
  return Path(shutil.copytree(MODELS / 'qwen2', tmp_path / 'm'))


def change_config(directory, **changes):
  path = directory / 'config.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
  ('changes', 'told'),
  [
    ({'model_type': 'mamba'}, "model_type 'mamba', expected one of gpt2"),
    ({'hidden_act': 'swish7'}, "activation 'swish7', expected one of"),
    ({'intermediate_size': 40}, r'of shape \(2, 48, 32\) for .*mlp/down'),
    ({'num_hidden_layers': 3}, 'has no model.layers.2.'),
    (
      {'rope_parameters': {'rope_type': 'yarn'}},
      "rope_type 'yarn', expected default, linear or llama3",
    ),
    (
      {'use_sliding_window': True, 'sliding_window': 8},
      'sliding_window 8, which is not implemented',
    ),
  ],
)
def test_what_is_wrong_is_named(copy, changes, told):
  change_config(copy, **changes)
  with pytest.raises(errors.InputError, match=told):
    pretrained_decoder.load_parameters(str(copy))


def test_missing_files_are_named(copy):
  with pytest.raises(errors.InputError, match="dtype is 'float8'"):
    pretrained_decoder.load_parameters(str(copy), 'float8')
  (copy / 'model.safetensors').write_bytes(b'no weights')
  with pytest.raises(errors.InputError, match='is no file of weights'):
    pretrained_decoder.load_parameters(str(copy))
  (copy / 'model.safetensors').unlink()
  with pytest.raises(errors.InputError, match=r'has no model\.safetensors'):
    pretrained_decoder.load_parameters(str(copy))
  (copy / 'config.json').unlink()
  with pytest.raises(errors.InputError, match=r'config\.json is missing'):
    pretrained_decoder.load_config(str(copy))


def test_names_without_the_prefix_of_a_whole_model(tmp_path):
  """As models are stored that have no output of their own."""
  place = Path(shutil.copytree(MODELS / 'gpt2', tmp_path / 'm'))
  weights = safetensors.numpy.load_file(place / 'model.safetensors')
  safetensors.numpy.save_file(
    {name.removeprefix('transformer.'): x for name, x in weights.items()},
    place / 'model.safetensors',
  )
  with np.load(place / 'logits.npz') as expected:
    found = logits_of(place, expected['tokens'])
    np.testing.assert_allclose(found, expected['logits'], atol=1e-4)
