"""A schedule on one machine: the line of a crontab, and systemd units.

Files are named after the schedule, so that several can share a directory and a
machine. What installs them leaves all else as it is and can be run again.
"""

from collections.abc import Mapping, Sequence
import importlib.resources
import shlex

DEPLOY = importlib.resources.files('launch') / 'deploy'


def crontab(
  name: str, cron_times: str, command: Sequence[str], directory: str
) -> dict[str, str]:
  """The file with the line of a crontab, which stands last in it.

  Args:
    name: of the schedule.
    cron_times: when, on one line.
    command: program and arguments, without control characters.
    directory: where the file will be.

  Returns:
    Its text by its name.
  """
  # In a crontab % stands for the end of a line.
  shown = shlex.join(command).replace('%', r'\%')
  text = (
    '# One line of a crontab. To add it, or to replace it after a change, with '
    'all other\n# lines kept (crontab FILE would delete them):\n'
    f'#   {install_crontab(name, directory)}\n'
    f'{cron_times} {shown}{_mark(name)}\n'
  )
  return {f'{name}.crontab': text}


def install_crontab(name: str, directory: str) -> str:
  """The shell command that puts the line into the crontab, once."""
  file = shlex.quote(f'{directory}/{name}.crontab')
  others = f"crontab -l 2>/dev/null | grep -v '{_mark(name)}$'"
  return f'({others}; tail -n 1 {file}) | crontab -'


def _mark(name: str) -> str:
  """The end of the line, by which it is known; a comment for the shell."""
  return f' # influence schedule {name}'


def units(
  name: str, calendar: str, command: Sequence[str], directory: str
) -> dict[str, str]:
  """Service and timer.

  Args:
    name: of the schedule.
    calendar: when, in the words of systemd.
    command: program and arguments, without control characters.
    directory: where the files will be.

  Returns:
    Their texts by their names.
  """
  values = {
    'NAME': name,
    'COMMAND': _systemd_command(command),
    'CALENDAR': calendar,
    'INSTALL': install_units(name, directory),
  }
  return {
    f'{name}.{kind}': _filled(
      (DEPLOY / f'reindex.{kind}').read_text('utf-8'), values
    )
    for kind in ('service', 'timer')
  }


def install_units(name: str, directory: str) -> str:
  """The shell command that installs the units for a user and starts them."""
  service, timer = (
    shlex.quote(f'{directory}/{name}.{kind}') for kind in ('service', 'timer')
  )
  return (
    f'systemctl --user link {service} && systemctl --user enable --now {timer}'
  )


def _systemd_command(command: Sequence[str]) -> str:
  """A command line for ExecStart.

  References:
    systemd.syntax(7), "Quoting"; systemd.service(5), "Command lines".
  """
  program, *arguments = map(_systemd_word, command)
  # $ begins a variable in arguments, not in the program.
  return ' '.join([program, *(x.replace('$', '$$') for x in arguments)])


def _systemd_word(text: str) -> str:
  # % begins a specifier everywhere.
  for character, escaped in (('\\', r'\\'), ('"', r'\"'), ('%', '%%')):
    text = text.replace(character, escaped)
  return f'"{text}"'


def _filled(text: str, values: Mapping[str, str]) -> str:
  for name, value in values.items():
    text = text.replace(f'@{name}@', value)
  return text
