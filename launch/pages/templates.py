"""Pages from the Jinja templates beside this file."""

from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
  """The page as text; what is not marked as safe is escaped.

  Args:
    template: its name, without .html.j2.
    **values: and functions that the template names.
  """
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('launch', 'pages'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  return environment.get_template(f'{template}.html.j2').render(**values)
