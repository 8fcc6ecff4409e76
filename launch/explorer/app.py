"""The web application: a page, questions, their progress and answers.

Nothing is answered without the token that is printed at start, which a first
visit exchanges for a cookie; nor under another name than that of the server.
"""

from collections.abc import Awaitable, Callable
import contextlib
import io
import json
import secrets
from typing import Any, NamedTuple

import pyarrow as pa
from starlette import applications, responses, routing
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request

from influence_core import errors
from launch.explorer import questions, raw_form
from launch.explorer.jobs import Job, JobConsole, Jobs
from launch.output import result_tables
from launch.pages import report_builder, report_page, sources, templates
from launch.pages.report_request import ReportRequest
from pipeline.corpora.corpus import RawExample
from pipeline.search.query_session import QuerySession

_MAX_BYTES = 32 << 20
_NUM_SUSPICIOUS = 96
_HEADERS = {
  'Content-Security-Policy': (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src "
    "'unsafe-inline'; img-src data:; connect-src 'self'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'"
  ),
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'Cache-Control': 'no-store',
}

Handler = Callable[[Request], Awaitable[responses.Response]]


class _Answer(NamedTuple):
  """What a question was answered with.

  Attributes:
    html: to be shown.
    results: rows to be kept; None where there are none.
  """

  html: str
  results: pa.Table | None = None


class Explorer:
  """An index that is asked from a page.

  Attributes:
    token: without which nothing is answered.
    jobs: questions that were asked.
  """

  def __init__(self, session: QuerySession):
    """Opens nothing yet but what the session has open.

    Args:
      session: of the indexes.
    """
    self._session = session
    self.token = secrets.token_urlsafe(24)
    self.jobs = Jobs()

  def application(self, hosts: list[str]) -> applications.Starlette:
    """The application.

    Args:
      hosts: names that it answers under; '*' for any.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app):
      del app
      # The first question need not wait for the model and its compilation.
      self.jobs.start(
        lambda console: self._session.project([self._first_example()])
      )
      yield
      self.jobs.close()

    return applications.Starlette(
      routes=[
        routing.Route('/', self._page),
        routing.Route('/ask', self._guarded(self._ask), methods=['POST']),
        routing.Route('/form', self._guarded(self._form), methods=['POST']),
        routing.Route(
          '/suspicious', self._guarded(self._suspicious), methods=['POST']
        ),
        routing.Route('/jobs/{job}', self._guarded(self._progress)),
        routing.Route('/jobs/{job}/{name}', self._guarded(self._results)),
      ],
      middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
      lifespan=lifespan,
    )

  def _knows(self, given: str | None) -> bool:
    return secrets.compare_digest((given or '').encode(), self.token.encode())

  def _cookie(self, request: Request) -> str:
    """Its name: cookies of all ports of a host are one another's."""
    return f'influence_{request.url.port or 0}'

  def _guarded(self, handler: Handler) -> Handler:
    """Answers those alone who have the cookie."""

    async def guarded(request: Request) -> responses.Response:
      if not self._knows(request.cookies.get(self._cookie(request))):
        return _error('open the address that influence explore printed', 403)
      try:
        return await handler(request)
      except errors.InputError as error:
        return _error(str(error), 400)

    return guarded

  async def _page(self, request: Request) -> responses.Response:
    if 'token' in request.query_params:
      if not self._knows(request.query_params['token']):
        return _error('this token is not that of the running server', 403)
      arrived = responses.RedirectResponse('/', 303, headers=_headers())
      arrived.set_cookie(
        self._cookie(request), self.token, httponly=True, samesite='strict'
      )
      return arrived
    if not self._knows(request.cookies.get(self._cookie(request))):
      return _error('open the address that influence explore printed', 403)
    nonce = secrets.token_urlsafe(16)
    index = self._session.index
    first, *_ = index.members
    html = templates.render(
      'explore',
      nonce=nonce,
      sources=[sources.describe(x.index, None) for x in index.members],
      num_examples=index.num_examples,
      columns=[f'{field.name} {field.type}' for field in index.schema],
      layers=[layer.name for layer in first.index.layers],
    )
    return responses.HTMLResponse(html, headers=_headers(nonce))

  async def _ask(self, request: Request) -> responses.Response:
    question = questions.parse(await _read_json(request))

    def answer(console: JobConsole) -> _Answer:
      builder = self._builder(console, question.request)
      raw = self._first_example()
      with question.queries(raw) as queries:
        sections, results = builder.answer(queries)
      html = templates.render('answers', queries=sections)
      return _Answer(html, results)

    return _started(self.jobs.start(answer))

  async def _suspicious(self, request: Request) -> responses.Response:
    del request
    wanted = ReportRequest(num_examples=_NUM_SUSPICIOUS)

    def answer(console: JobConsole) -> _Answer:
      gallery = self._builder(console, wanted).gallery()
      return _Answer(
        templates.render(
          'suspicious', gallery=gallery, page_size=report_page.PAGE_SIZE
        )
      )

    return _started(self.jobs.start(answer))

  async def _form(self, request: Request) -> responses.Response:
    del request

    def answer(console: JobConsole) -> _Answer:
      del console
      fields = raw_form.fields_of(self._first_example())
      return _Answer(templates.render('raw_form', fields=fields))

    return _started(self.jobs.start(answer))

  async def _progress(self, request: Request) -> responses.Response:
    job = self._job(request)
    answer = {
      name: getattr(job, name)
      for name in ('state', 'stage', 'done', 'total', 'notes', 'error')
    }
    if job.state == 'done' and job.result:
      answer['html'] = job.result.html
      answer['has_results'] = job.result.results is not None
    return responses.JSONResponse(answer, headers=_headers())

  async def _results(self, request: Request) -> responses.Response:
    job, name = self._job(request), request.path_params['name']
    if job.state != 'done' or job.result.results is None:
      raise errors.InputError('there are no results to keep; ask first')
    if name not in ('results.csv', 'results.parquet'):
      raise errors.InputError(
        f'{name} is not kept, expected results.csv or results.parquet'
      )
    file = io.BytesIO()
    result_tables.encode(file, name, job.result.results)
    disposition = {'Content-Disposition': f'attachment; filename={name}'}
    return responses.Response(
      file.getvalue(),
      media_type='application/octet-stream',
      headers=_headers() | disposition,
    )

  def _job(self, request: Request) -> Job:
    job = self.jobs.get(request.path_params['job'])
    if job is None:
      raise errors.InputError('this question is no longer known; ask again')
    return job

  def _builder(
    self, console: JobConsole, wanted: ReportRequest
  ) -> report_builder.ReportBuilder:
    with console.stage('load the model', 'once'):
      return report_builder.ReportBuilder(console, self._session, wanted)

  def _first_example(self) -> RawExample:
    return self._session.loaded.first_examples()[0]


def _started(job: Job) -> responses.Response:
  return responses.JSONResponse({'job': job.id}, 202, headers=_headers())


def _error(message: str, status: int) -> responses.Response:
  return responses.JSONResponse({'error': message}, status, headers=_headers())


def _headers(nonce: str = 'none') -> dict[str, str]:
  return {
    name: value.replace('{nonce}', nonce) for name, value in _HEADERS.items()
  }


async def _read_json(request: Request) -> Any:
  """The body of a request, if it is not too large.

  Raises:
    errors.InputError: It is, or it is no JSON.
  """
  body = bytearray()
  async for part in request.stream():
    body += part
    if len(body) > _MAX_BYTES:
      raise errors.InputError(
        f'the question has more than {_MAX_BYTES >> 20} MiB; ask with '
        'influence topk'
      )
  try:
    return json.loads(bytes(body))
  except (ValueError, RecursionError) as error:
    raise errors.InputError('the question is no JSON') from error
