"""The flags of `influence report`."""

import dataclasses
from typing import Any

from influence_core import errors
from launch.flags import (
  common as common_flags,
  fields,
  project as project_flags,
)
from launch.pages.report_request import ReportRequest
from pipeline.tasks.query_choice import QueryChoice


@dataclasses.dataclass(frozen=True)
class OptionalQueries(fields.Group):
  """Queries that may be left out."""

  def take(self, values: dict[str, Any]) -> QueryChoice | None:
    places = 'query_split', 'queries', 'query_ids'
    if any(values[name] for name in places):
      return super().take(values)
    given = {x.name: values.pop(self._flag_name(x)) for x in self._fields()}
    if given['contrast'] or given['aggregate'] != 'none':
      raise errors.InputError(
        '--aggregate and --contrast are given without queries; give '
        '--query_split, --queries or --query_ids, too'
      )
    return None


def add_report(parser: fields.CommandParser) -> None:
  parser.add(common_flags.INDEX_TASK)
  common_flags.add_indexes(parser)
  common_flags.add_bases(parser)
  parser.add(OptionalQueries('queries', QueryChoice))
  parser.add(fields.Group('request', ReportRequest, common_flags.SCORE_FLAGS))
  parser.add(project_flags.PROJECTION)
  parser.add_argument(
    '--out', required=True, help='the page to write, .html, local or remote'
  )
