"""What a person sees: progress, results and log lines.

Results go to stdout, everything else to stderr. On a terminal a stage shows a
bar with rate and time left; elsewhere it logs a line of key=value pairs now
and then, for people and programs that read logs. With --json, stdout carries
one JSON object and nothing else.
"""

from collections.abc import Iterator, Sequence
import contextlib
import logging
import os
import sys
import time
from typing import Any, Protocol

from pythonjsonlogger import json
import rich.console
import rich.progress
import rich.status
import rich.table

_LOG_INTERVAL_SECONDS = 15
_LINE_WIDTH = 10_000

logger = logging.getLogger('influence')


class StageUpdate(Protocol):
  """Shows how far a stage is."""

  def __call__(self, num_done: int, num_total: int, /, **facts: float) -> None:
    """Shows units done and in all, and more numbers by name."""


class Console:
  """Prints results and reports progress."""

  def __init__(self, *, json_only: bool = False):
    self._json_only = json_only
    # Lines are never folded: ids must stay whole to be copied or piped.
    self._out = rich.console.Console(highlight=False, width=_LINE_WIDTH)
    self._err = rich.console.Console(file=sys.stderr)
    self.seconds: dict[str, float] = {}
    self.facts: dict[str, dict[str, float]] = {}
    self._warned: set[str] = set()
    self._suggested: tuple[str, ...] = ()
    self._spinner: rich.status.Status | None = None

  def quiet(self) -> 'Console':
    """A console that prints no results; its stages count for this one."""
    self.end_wait()
    silent = Console(json_only=True)
    silent.seconds, silent.facts = self.seconds, self.facts
    silent._warned = self._warned
    return silent

  def wait(self, text: str) -> None:
    """Shows on a terminal that something goes on, until there is more to say.

    Imports and the first compilation take seconds.
    """
    if self._err.is_terminal:
      self._spinner = self._err.status(text)
      self._spinner.start()

  def end_wait(self) -> None:
    """Removes what `wait` shows."""
    if self._spinner:
      self._spinner.stop()
      self._spinner = None

  def print(self, text: str = '') -> None:
    """Prints a line of the result."""
    self.end_wait()
    if not self._json_only:
      self._out.print(text, markup=False)

  def tell(self, text: str) -> None:
    """Tells what is being done, beside the result."""
    self.end_wait()
    if not self._json_only:
      logger.info(text)

  def suggest(self, *commands: str) -> None:
    """Keeps what may be run next, instead of what was suggested before."""
    self._suggested = commands

  def print_suggestions(self) -> None:
    """Prints what may be run next, at the very end."""
    for number, command in enumerate(self._suggested):
      self.print(f'{"      " if number else "next: "}{command}')

  def warn(self, text: str) -> None:
    """Tells what the result alone might hide, a text once for each command."""
    self.end_wait()
    if text not in self._warned:
      self._warned.add(text)
      logger.warning(text)

  def table(
    self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
  ) -> None:
    """Prints a table of the result."""
    if self._json_only:
      return
    self.print(title)
    table = rich.table.Table(box=None, pad_edge=False)
    for column in columns:
      table.add_column(column, no_wrap=True)
    for row in rows:
      table.add_row(*row)
    self._out.print(table, markup=False)

  @contextlib.contextmanager
  def stage(self, name: str, unit: str = 'examples') -> Iterator[StageUpdate]:
    """Times a stage and shows its progress.

    Yields:
      A function to call with the number of units done, the number in all, and
      what else there is to know.
    """
    self.end_wait()
    started = time.monotonic()
    newest: dict[str, float] = {}
    display = self._bar if self._err.is_terminal else self._log_lines
    with display(name, unit) as show:

      def update(num_done: int, num_total: int, /, **facts: float) -> None:
        newest.update(facts)
        show(num_done, num_total, **facts)

      yield update
    seconds = time.monotonic() - started
    self.seconds[name] = round(seconds, 3)
    self.facts[name] = newest
    log_pairs(stage=name, state='done', seconds=round(seconds, 1), **newest)

  @contextlib.contextmanager
  def _bar(self, name: str, unit: str) -> Iterator[StageUpdate]:
    progress = rich.progress.Progress(
      rich.progress.TextColumn('{task.description:<16}'),
      rich.progress.BarColumn(),
      rich.progress.MofNCompleteColumn(),
      rich.progress.TextColumn('{task.fields[rate]}'),
      rich.progress.TimeElapsedColumn(),
      rich.progress.TextColumn('ETA'),
      rich.progress.TimeRemainingColumn(),
      rich.progress.TextColumn('{task.fields[facts]}'),
      console=self._err,
      transient=True,
    )
    with progress:
      task = progress.add_task(name, total=None, rate='', facts='')

      def update(num_done: int, num_total: int, /, **facts: float) -> None:
        speed = progress.tasks[0].finished_speed or progress.tasks[0].speed
        progress.update(
          task,
          completed=num_done,
          total=num_total,
          rate=_pace(speed, unit) if speed else '',
          facts='  '.join(
            f'{name.replace("_", " ")} {value}' for name, value in facts.items()
          ),
        )

      yield update

  @contextlib.contextmanager
  def _log_lines(self, name: str, unit: str) -> Iterator[StageUpdate]:
    last_line = time.monotonic()
    first: tuple[int, float] | None = None

    def update(num_done: int, num_total: int, /, **facts: float) -> None:
      nonlocal last_line, first
      now = time.monotonic()
      if first is None:
        # What was done by then may be of an earlier run.
        first = num_done, now
      if now - last_line < _LOG_INTERVAL_SECONDS or not num_done:
        return
      last_line = now
      pace: dict[str, float] = {}
      if num_done > first[0]:
        rate = (num_done - first[0]) / (now - first[1])
        pace['rate'] = float(f'{rate:.3g}')
        pace['eta_seconds'] = round((num_total - num_done) / rate)
      log_pairs(
        stage=name, done=num_done, total=num_total, unit=unit, **pace, **facts
      )

    yield update


def _pace(speed: float, unit: str) -> str:
  shown = f'{speed:,.1f}' if speed >= 1 else f'{speed:.2g}'
  return f'{shown} {unit}/s'


def log_pairs(**values: Any) -> None:
  """A line of key=value pairs; as JSON, they are fields, too."""
  text = ' '.join(f'{name}={value}' for name, value in values.items())
  logger.info(text, extra=values)


def configure_logging(*, verbose: bool, as_json: bool = False) -> None:
  """Our lines from INFO, those of libraries only if verbose.

  They log the tracebacks of errors that they also raise, which are told then.
  """
  logging.basicConfig(
    format='%(asctime)s %(levelname)s %(message)s',
    datefmt='%Y-%m-%dT%H:%M:%S%z',
    level=logging.WARNING if verbose else logging.CRITICAL,
    force=True,
  )
  if as_json:
    formatter = json.JsonFormatter(
      ['levelname', 'message'],
      rename_fields={'levelname': 'severity'},
      timestamp='time',
    )
    for handler in logging.getLogger().handlers:
      handler.setFormatter(formatter)
  logger.setLevel(logging.INFO)
  # Dask makes handlers of its own when it is imported.
  os.environ.setdefault('DASK_LOGGING__DISTRIBUTED', 'error')
  for library in ('apache_beam', 'gcsfs'):
    level = logging.WARNING if verbose else logging.CRITICAL
    logging.getLogger(library).setLevel(level)
