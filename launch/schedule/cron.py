"""Times of a crontab: checked, and in the words of systemd."""

import re

from influence_core import errors

_FIELDS = (
  ('minute', 0, 59),
  ('hour', 0, 23),
  ('day', 1, 31),
  ('month', 1, 12),
  ('weekday', 0, 7),
)
_DAYS = ('Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat')
_PART = re.compile(r'(\*|\d+(?:-\d+)?)(?:/(\d+))?')


def parse(cron: str) -> tuple[tuple[int, ...] | None, ...]:
  """Values of minute, hour, day, month and weekday (0 is Sunday); None for all.

  Raises:
    errors.InputError: It is no such time; names the field.
  """
  texts = cron.split()
  if len(texts) != len(_FIELDS):
    raise errors.InputError(
      f'cron is {cron!r}, expected five fields: minute, hour, day, month and '
      "weekday, such as '0 3 * * *' for every day at 3"
    )
  return tuple(
    _values(text, *field) for text, field in zip(texts, _FIELDS, strict=True)
  )


def _values(
  text: str, name: str, least: int, most: int
) -> tuple[int, ...] | None:
  if text == '*':
    return None
  found: set[int] = set()
  for part in text.split(','):
    match = _PART.fullmatch(part)
    first, last = least, most
    if match and match[1] != '*':
      start, _, end = match[1].partition('-')
      first, last = int(start), int(end or (most if match[2] else start))
    step = int(match[2] or 1) if match else 0
    if not step or not least <= first <= last <= most:
      raise errors.InputError(
        f'cron has {name} {text!r}, expected numbers from {least} to {most}, '
        'with , - and */N'
      )
    found.update(range(first, last + 1, step))
  if name == 'weekday':
    found = {value % 7 for value in found}
  return tuple(sorted(found))


def on_calendar(cron: str) -> str:
  """The same times for `OnCalendar` of a systemd timer.

  Raises:
    errors.InputError: It is no time of a crontab, or one that means either of
      two days, which systemd cannot say.
  """
  minutes, hours, days, months, weekdays = parse(cron)
  if days and weekdays:
    raise errors.InputError(
      f'cron is {cron!r}, which is on either day and weekday; give one of them'
    )
  which = ''
  if weekdays is not None:
    which = ','.join(_DAYS[day] for day in weekdays) + ' '
  time = f'{_list(hours)}:{_list(minutes)}:00'
  return f'{which}*-{_list(months)}-{_list(days)} {time}'


def _list(values: tuple[int, ...] | None) -> str:
  if values is None:
    return '*'
  return ','.join(f'{value:02d}' for value in values)
