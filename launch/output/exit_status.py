"""What a command's exit status says, for schedulers."""

import enum


class ExitStatus(enum.IntEnum):
  """Exit statuses; `meaning` is what --help says of each."""

  DONE = 0
  FAILED = 1
  USAGE = 2
  OVERLAP = 3
  STALE = 4
  DAMAGED = 5
  REJECTED = 6
  STALLED = 7
  INTERRUPTED = 130

  @property
  def meaning(self) -> str:
    return _MEANINGS[self]


_MEANINGS = {
  ExitStatus.DONE: 'done, or nothing to do',
  ExitStatus.FAILED: 'input that cannot be used, or something that failed',
  ExitStatus.USAGE: 'an unknown flag, one that is missing, or no value for it',
  ExitStatus.OVERLAP: 'another run is at work',
  ExitStatus.STALE: 'a basis or index of another model, task or data',
  ExitStatus.DAMAGED: 'a stored file is missing, truncated or altered',
  ExitStatus.REJECTED: 'too many examples could not be used',
  ExitStatus.STALLED: 'a worker was killed, or does not go on',
  ExitStatus.INTERRUPTED: 'interrupted; the same command goes on',
}

# By the names of errors, which are all that comes back from a Beam runner.
_BY_ERROR = {
  'OverlapError': ExitStatus.OVERLAP,
  'StaleFingerprintError': ExitStatus.STALE,
  'DamagedFileError': ExitStatus.DAMAGED,
  'TooManyRejectedError': ExitStatus.REJECTED,
  'StalledError': ExitStatus.STALLED,
}


def of_error(name: str) -> ExitStatus:
  """The status that an error of a class with this name ends a command with."""
  return _BY_ERROR.get(name, ExitStatus.FAILED)


def table() -> str:
  """All statuses with their meanings, for --help."""
  return '\n'.join(
    f'  {status.value:<4} {status.meaning}' for status in ExitStatus
  )
