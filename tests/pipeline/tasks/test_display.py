"""What is seen of examples, by the form of their features or as a task says."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from influence_core import errors
from pipeline import FileCorpus, Task
from pipeline.corpora.corpus import ID_KEY
from pipeline.tasks import display


def pieces(raw, **fields):
  task = Task(
    name='shown',
    load_parameters=dict,
    per_example_loss=lambda params, features: features,
    corpus=FileCorpus('nowhere.jsonl'),
    preprocess=dict,
    **fields,
  )
  found = display.pieces_of(task, 'some__3', {ID_KEY: 'some__3', **raw})
  return {piece.name: piece.value for piece in found}


def encoded(kind, size=(6, 5)):
  buffer = io.BytesIO()
  PIL.Image.new('RGB', size, (200, 10, 10)).save(buffer, kind)
  return buffer.getvalue()


@pytest.mark.parametrize(
  ('value', 'mode', 'corner'),
  [
    (np.full((6, 5, 1), 7, np.uint8), 'L', 7),
    (np.full((6, 5, 3), 7, np.uint8), 'RGB', (7, 7, 7)),
    (np.full((9, 8), 7, np.uint8), 'L', 7),
    # From 0 to 1 as it is, anything else from the lowest to the highest.
    (np.full((6, 5, 1), 0.5, np.float32), 'L', 128),
    (np.linspace(-4, 4, 30).reshape(6, 5, 1), 'L', 0),
    (encoded('PNG'), 'RGB', (200, 10, 10)),
    (PIL.Image.new('L', (5, 6), 9), 'L', 9),
  ],
)
def test_images(value, mode, corner):
  [image] = pieces({'x': value}).values()
  assert image.mode == mode
  assert image.getpixel((0, 0)) == corner


@pytest.mark.parametrize('kind', ['JPEG', 'GIF', 'WEBP', 'BMP'])
def test_encoded_files(kind):
  image = pieces({'x': encoded(kind)})['x']
  assert image.size == (6, 5)


def png_of_claimed_size(width, height):
  header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
  chunks = b''.join(
    struct.pack('>I', len(data))
    + name
    + data
    + struct.pack('>I', zlib.crc32(name + data))
    for name, data in ((b'IHDR', header), (b'IDAT', zlib.compress(b'')))
  )
  return b'\x89PNG\r\n\x1a\n' + chunks


@pytest.mark.parametrize(
  'data',
  [
    encoded('PNG')[:40],
    png_of_claimed_size(60_000, 60_000),  # 10 GiB once it is decoded.
    b'\xff\xd8\xff and then no JPEG',
  ],
)
def test_damaged_and_hostile_files_are_no_images(data):
  text = f'{len(data)} bytes that are no image'
  assert pieces({'x': data}) == {'x': text}


def test_texts_and_numbers():
  found = pieces(
    {
      'text': 'Zwei Männer'.encode(),
      'words': np.array([b'a', b'b'], object),
      'age': 3,
      'x': np.arange(4),
      'cube': np.zeros((2, 3, 7)),
      'nested': {'title': 'T'},
      'absent': None,
      'label': 5,
    },
    row_columns=lambda raw: {'label': raw['label']},
  )
  assert found.pop('age') == [3]
  np.testing.assert_array_equal(found.pop('x'), [0, 1, 2, 3])
  # Columns stand in the row, and are not repeated.
  assert found == {
    'text': 'Zwei Männer',
    'words': 'a, b',
    'cube': 'float64 array of shape (2, 3, 7)',
    'nested/title': 'T',
  }


def test_tokens_are_shown_as_text():
  found = pieces(
    {'tokens': np.array([3, 4])}, token_texts=lambda raw: ['to', 'gether']
  )
  assert found == {'text': 'together'}


def test_a_task_says_what_is_shown():
  found = pieces(
    {'x': np.zeros(3)}, show=lambda raw: {'note': f'{len(raw["x"])} numbers'}
  )
  assert found == {'note': '3 numbers'}
  with pytest.raises(errors.InputError, match=r'show of some__3 failed \(Key'):
    pieces({}, show=lambda raw: {'x': raw['absent']})
