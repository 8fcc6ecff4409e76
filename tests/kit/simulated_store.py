"""A store and processes whose steps are interleaved as a test wants.

Every operation on the store is a step. Before each one the process waits for
its turn; where it is killed instead, the operation may or may not have taken
effect, as when a machine fails between a request and its answer.
"""

from collections.abc import Callable
import threading

from pipeline.storage import files as storage


class KilledError(BaseException):
  """Ends a process; nothing may catch it."""


class SimulatedStore:
  """Objects by path: created whole, never replaced."""

  def __init__(self):
    self.objects: dict[str, bytes] = {}
    self._process = threading.local()

  def run_as(self, process: 'Process') -> None:
    """Steps of this thread are those of a process from now on."""
    self._process.current = process

  def _step(self, operation: Callable):
    process = getattr(self._process, 'current', None)
    return operation() if process is None else process.step(operation)

  # What of `pipeline.storage.files` an index is written and read with.

  def exists(self, path: str) -> bool:
    return self._step(lambda: path in self.objects)

  def create_exclusive(self, path: str, data) -> bool:
    def create():
      if path in self.objects:
        return False
      self.objects[path] = bytes(data)
      return True

    return self._step(create)

  def read_bytes(self, path: str) -> bytes:
    def read():
      if path not in self.objects:
        raise storage.DamagedFileError(f'{path} is missing')
      return self.objects[path]

    return self._step(read)

  def sizes(self, directory: str) -> dict[str, int]:
    prefix = f'{directory}/'
    return self._step(
      lambda: {
        path.removeprefix(prefix): len(data)
        for path, data in self.objects.items()
        if path.startswith(prefix) and '/' not in path.removeprefix(prefix)
      }
    )

  def install(self, monkeypatch) -> None:
    """Puts the store in the place of `pipeline.storage.files`'s functions."""
    for name in ('exists', 'create_exclusive', 'read_bytes', 'sizes'):
      monkeypatch.setattr(storage, name, getattr(self, name))


class Process:
  """A function that runs one step at a time."""

  def __init__(self, store: SimulatedStore, function: Callable[[], None]):
    self._turn = threading.Semaphore(0)
    self._waits = threading.Semaphore(0)
    self._kill: str | None = None
    self.is_over = False
    self.error: BaseException | None = None

    def run():
      store.run_as(self)
      try:
        function()
      except KilledError:
        pass
      except BaseException as error:  # Looked at by the test.
        self.error = error
      self.is_over = True
      self._waits.release()

    self._thread = threading.Thread(target=run, daemon=True)
    self._thread.start()
    self._waits.acquire()

  def step(self, operation: Callable):
    """Called by the process: waits for its turn, then operates."""
    self._waits.release()
    self._turn.acquire()
    if self._kill == 'before':
      raise KilledError
    result = operation()
    if self._kill == 'after':
      raise KilledError
    return result

  def advance(self, kill: str | None = None) -> None:
    """Lets it do one step, or kills it 'before' or 'after' that step."""
    if self.is_over:
      return
    self._kill = kill
    self._turn.release()
    self._waits.acquire()

  def finish(self) -> None:
    while not self.is_over:
      self.advance()
