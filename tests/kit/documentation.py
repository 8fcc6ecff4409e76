"""The pages that users read, and what they are told to type."""

import re
import shlex

from tests.kit.devices import ROOT

PAGES = (
  ROOT / 'README.md',
  ROOT / 'launch' / 'README.md',
  ROOT / 'launch' / 'TROUBLESHOOTING.md',
  ROOT / 'launch' / 'example_tasks' / 'RESULTS.md',
  ROOT / 'pipeline' / 'README.md',
  ROOT / 'influence_core' / 'README.md',
)


def text():
  """All pages, one after the other."""
  return '\n'.join(page.read_text() for page in PAGES)


def blocks(language=''):
  """Contents of the fenced blocks of a language, on all pages."""
  fences = re.findall(
    r'^```(\w*)\n(.*?)^```$', text(), re.MULTILINE | re.DOTALL
  )
  return [content for name, content in fences if name == language]


def commands():
  """Words of each command line after `influence`, on all pages."""
  for block in blocks():
    variables = dict(re.findall(r'^(\w+)="(.*)"$', block, re.M))
    variables = {'TASK': TASK, **variables}
    for line in block.replace('\\\n', ' ').splitlines():
      *_, command = re.split(
        r'(?:^|\| |&& \S*bin/)influence ', line, maxsplit=1
      )
      if command == line and not line.startswith('influence '):
        continue
      for name, value in variables.items():
        command = command.replace(f'${name}', value)
      words = shlex.split(command.partition(' | ')[0], comments=True)
      if words != ['...']:
        yield words


TASK = '--task launch.example_tasks.mnist_cnn:make_task --task_arg workdir=W'
