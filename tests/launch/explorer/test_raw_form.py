"""Queries that are typed: what a form gives has the types of the corpus."""

import base64
import io

import numpy as np
import PIL.Image
import pytest

from influence_core import errors
from launch.explorer import raw_form
from pipeline.corpora.corpus import ID_KEY


def uploaded(kind='PNG', size=(30, 20)):
  buffer = io.BytesIO()
  PIL.Image.new('RGB', size, (255, 0, 0)).save(buffer, kind)
  return {'data': base64.b64encode(buffer.getvalue()).decode()}


def test_fields_are_those_of_an_example():
  raw = {
    ID_KEY: 'a__1',
    'image': np.zeros((9, 8, 3), np.uint8),
    'text': b'some',
    'label': np.int64(3),
    'x': np.arange(3, dtype=np.float32),
    'long': np.zeros(5000),
    'absent': None,
  }
  assert raw_form.fields_of(raw) == [
    ('image', 'image', ''),
    ('text', 'text', 'some'),
    ('label', 'number', '3'),
    ('x', 'numbers', '[0.0, 1.0, 2.0]'),
  ]
  made = raw_form.example_of(
    raw, {'text': 'other', 'label': '7', 'x': '[1, 2]', 'image': {}}
  )
  assert ID_KEY not in made
  assert made['text'] == b'other'
  assert (made['label'], made['label'].dtype) == (7, np.int64)
  assert made['x'].dtype == np.float32
  assert made['x'].tolist() == [1, 2]
  assert made['image'] is raw['image']  # As nothing was given.


@pytest.mark.parametrize(
  ('old', 'expected'),
  [
    # In colours or grey, of the size and in the range of the corpus.
    (np.full((9, 8, 3), 255, np.uint8), [255, 0, 0]),
    (np.full((9, 8, 1), 255, np.uint8), [76]),
    (np.full((9, 8), 255, np.uint8), 76),
    (np.full((9, 8, 1), 16, np.uint8), [4]),
    (np.full((9, 8, 3), 1, np.float32), [1, 0, 0]),
  ],
)
def test_images_take_the_form_of_the_corpus(old, expected):
  made = raw_form.example_of({'image': old}, {'image': uploaded('JPEG')})
  assert made['image'].shape == old.shape
  assert made['image'].dtype == old.dtype
  # JPEG loses a little of any colour.
  np.testing.assert_allclose(made['image'][0, 0], expected, atol=1.1)


def test_encoded_images_stay_encoded():
  old = base64.b64decode(uploaded()['data'])
  new = uploaded('JPEG')
  made = raw_form.example_of({'image': old}, {'image': new})
  assert made['image'] == base64.b64decode(new['data'])


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'image': 'text'}, 'is no uploaded file'),
    ({'image': {'data': '??'}}, 'is no uploaded file'),
    ({'image': {'data': 'AAAA'}}, 'is no image that can be read'),
    ({'label': '1.0.0'}, 'expected a number'),
    ({'label': 3}, 'label is int, expected a text'),
    ({'label': '[3]'}, 'expected a number'),
    ({'x': '{"a": 1}'}, 'expected a list of numbers'),
    ({'x': '3'}, 'expected a list of numbers'),
    ({'other': '3'}, "field 'other' is not one of the corpus"),
  ],
)
def test_what_is_no_value_is_named(given, message):
  raw = {
    'image': np.zeros((9, 8, 3), np.uint8),
    'label': 3,
    'x': np.zeros(2),
  }
  with pytest.raises(errors.InputError, match=message):
    raw_form.example_of(raw, given)
