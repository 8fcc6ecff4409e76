"""Programs of other languages that some engines need, kept on this machine.

    DIRECTORY/<beam version>/<file>           jar or binary
    DIRECTORY/<beam version>/<file>.sha256    of what was installed

Maven and Go fetch them, each by its own rules and checks; both must be of the
very version of Beam that is installed.
"""

import contextlib
import dataclasses
import hashlib
from importlib import metadata
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from influence_core import errors

FLINK_VERSION = '2.0'
# Of what a tool says when it fails.
_TOLD_CHARACTERS = 200


@dataclasses.dataclass(frozen=True)
class EngineFile:
  """A program that an engine needs.

  Attributes:
    name: of the file.
    tool: the program that fetches it.
    source: Maven artifact or Go package, without version.
  """

  name: str
  tool: str
  source: str


FILES = {
  'flink': EngineFile(
    'flink-job-server.jar',
    'mvn',
    f'org.apache.beam:beam-runners-flink-{FLINK_VERSION}-job-server',
  ),
  'spark': EngineFile(
    'spark-job-server.jar',
    'mvn',
    'org.apache.beam:beam-runners-spark-3-job-server',
  ),
  'prism': EngineFile(
    'prism', 'go', 'github.com/apache/beam/sdks/v2/go/cmd/prism'
  ),
}


def _beam_version() -> str:
  """Of the installed package, without importing it."""
  return metadata.version('apache-beam')


def path(engine: str) -> str:
  """Where the file of an engine is, or would be."""
  root = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  directory = pathlib.Path(root, 'influence', _beam_version())
  return str(directory / FILES[engine].name)


def check(engine: str) -> None:
  """Checks that the file of an engine is there and what was installed.

  Raises:
    errors.InputError: It is not.
  """
  file = pathlib.Path(path(engine))
  with contextlib.suppress(OSError):
    if _sha256(file) == _sum_file(file).read_text():
      return
  raise errors.InputError(
    f'engine {engine} needs {file}, which is missing or altered; run '
    f'influence install-engine {engine}'
  )


def install(engine: str) -> bool:
  """Fetches the file of an engine; False if it is there already.

  Raises:
    errors.InputError: Its tool is missing, or cannot fetch it.
  """
  with contextlib.suppress(errors.InputError):
    check(engine)
    return False
  about, file = FILES[engine], pathlib.Path(path(engine))
  if shutil.which(about.tool) is None:
    raise errors.InputError(
      f'{about.tool} is not installed, which fetches {about.source}; install '
      'Maven and Java (Flink, Spark) or Go (Prism) first'
    )
  file.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=file.parent) as directory:
    fetched = _fetch(about, directory)
    _sum_file(file).write_text(_sha256(fetched))
    fetched.replace(file)
  return True


def _fetch(about: EngineFile, directory: str) -> pathlib.Path:
  version = _beam_version()
  environment = dict(os.environ)
  if about.tool == 'go':
    command = ['go', 'install', f'{about.source}@v{version}']
    environment['GOBIN'] = directory
  else:
    # Fails, not warns, where a checksum does not fit.
    command = ['mvn', '--batch-mode', '--quiet', '--strict-checksums']
    command += ['-Dstyle.color=never', 'dependency:copy']
    command += [f'-Dartifact={about.source}:{version}']
    command += [f'-DoutputDirectory={directory}']
  done = subprocess.run(
    command, env=environment, capture_output=True, text=True, check=False
  )
  found = list(pathlib.Path(directory).iterdir())
  if done.returncode or len(found) != 1:
    output = re.sub('\x1b\\[[0-9;]*m', '', done.stderr + done.stdout)
    lines = [line for line in output.splitlines() if line.strip()]
    told = next((x for x in lines if 'ERROR' in x), lines[0] if lines else '')
    raise errors.InputError(
      f'{about.tool} cannot fetch {about.source} {version} '
      f'({told[:_TOLD_CHARACTERS]}...); is the version served there?'
    )
  return found[0]


def _sha256(file: pathlib.Path) -> str:
  with open(file, 'rb') as content:
    return hashlib.file_digest(content, 'sha256').hexdigest()


def _sum_file(file: pathlib.Path) -> pathlib.Path:
  return file.with_name(f'{file.name}.sha256')
