"""Translation with an encoder-decoder Transformer; Multi30k unless told."""

from launch.example_tasks import example, train_translator, translation
from pipeline import Task


def make_task(
  workdir: str, loss_reduction: str = 'sum', epochs: str = 'last'
) -> Task:
  """The translator trained by `influence train-example seq2seq`."""
  return translation.make_task(workdir, loss_reduction, epochs)


EXAMPLE = example.Example(
  translation.make_config,
  translation.load_config,
  train_translator.train,
  train_translator.measure,
)
