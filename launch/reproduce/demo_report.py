"""The page that `influence demo` writes: images beside the figures."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from launch.example_tasks import image_classifier, train_classifier
from launch.output import html_page
from pipeline.tasks.reference import TaskReference

_NUM_SUSPICIOUS = 24
_ZOOM = 8


def render(
  task: TaskReference,
  summary: dict[str, Any],
  suspicious: list[dict[str, Any]],
) -> str:
  """One self-contained HTML page.

  Args:
    task: of the digits classifier.
    summary: what `summary.json` holds.
    suspicious: rows of the highest self-influence, best first.
  """
  known = _known_examples(task)

  def card(row: dict[str, Any], *lines: str) -> html_page.Card:
    image, _, _ = known[row['id']]
    return html_page.Card(_data_uri(image), row['id'], lines)

  def scored(row: dict[str, Any]) -> html_page.Card:
    wrong = row['label'] != row['true_label']
    note = f' (truly {row["true_label"]})' if wrong else ''
    return card(row, f'label {row["label"]}{note}', f'{row["score"]:+.3g}')

  return html_page.render(
    title='Influence on 1,797 handwritten digits',
    summary=summary,
    suspicious=[
      card(
        row,
        f'label {row["label"]}, truly {row["true_label"]}',
        f'predicted {known[row["id"]][2]}',
        f'loss {row["loss"]:.2g}',
        f'self-influence {row["score"]:.3g}',
      )
      for row in suspicious[:_NUM_SUSPICIOUS]
    ],
    queries=[
      html_page.Query(
        card(
          query,
          f'label {known[query["id"]][1]}',
          f'predicted {known[query["id"]][2]}',
        ),
        [scored(row) for row in query['proponents']],
        [scored(row) for row in query['opponents']],
      )
      for query in summary['queries']
    ],
  )


def _known_examples(
  task: TaskReference,
) -> dict[str, tuple[np.ndarray, int, int]]:
  """Image, label and predicted label of all examples, by id."""
  config = image_classifier.load_config(task.arguments['workdir'])
  params = task.load().load_parameters()
  known: dict[str, tuple[np.ndarray, int, int]] = {}
  for split in (config.train_split, 'test'):
    examples = train_classifier.read_split(config, split)
    predicted = train_classifier.predict(config, params, examples.images)
    known |= {
      example_id: (image, int(label), int(prediction))
      for example_id, image, label, prediction in zip(
        examples.ids, examples.images, examples.labels, predicted, strict=True
      )
    }
  return known


def _data_uri(image: np.ndarray) -> str:
  """A [height, width, 1] image in [0, 1] as an enlarged PNG."""
  pixels = (255 - np.round(image[..., 0] * 255)).astype(np.uint8)
  pixels = pixels.repeat(_ZOOM, 0).repeat(_ZOOM, 1)
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, format='png')
  encoded = base64.b64encode(buffer.getvalue()).decode()
  return f'data:image/png;base64,{encoded}'
