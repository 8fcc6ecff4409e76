"""An object store on loopback, and a network before it that misbehaves.

The emulator ignores preconditions, so the proxy checks `ifGenerationMatch=0`
itself, one request at a time, as the real store does.
"""

import contextlib
import dataclasses
from http import server
import http.client
import json
import random
import re
import sys
import threading
import time
import urllib.parse

from gcp_storage_emulator import server as emulator

BUCKET = 'bucket'
FAULTS = ('503', '429', 'reset', 'lost_reply', 'duplicate', 'slow_body')


@dataclasses.dataclass
class Reply:
  status: int
  headers: dict[str, str]
  body: bytes


class LoopbackServer(server.ThreadingHTTPServer):
  """Says nothing of clients that go away, and ends at once."""

  daemon_threads = True

  def start(self):
    """Answers in a thread until `shutdown`, which waits for it to look up."""
    threading.Thread(
      target=self.serve_forever, args=(0.01,), daemon=True
    ).start()

  def handle_error(self, request, client_address):
    if not isinstance(sys.exc_info()[1], ConnectionError):
      super().handle_error(request, client_address)


class ObjectStore:
  """The emulator behind the proxy; requests can be counted and disturbed.

  Attributes:
    endpoint: URL of the proxy.
    requests: (method, path with query, Range header) in order, faulty ones
      included.
    most_at_once: most requests that were answered at the same time.
  """

  def __init__(self):
    self.requests: list[tuple[str, str, str | None]] = []
    self.most_at_once = 0
    self._at_once = 0
    self._chooser: random.Random | None = None
    self._probability = 0.0
    self._planned: list[tuple[str, str]] = []
    self._answer_to_all: Reply | None = None
    self._uploads_to_new_names: dict[str, str] = {}
    self._lock = threading.Lock()
    self._emulator = emulator.create_server('127.0.0.1', 0, in_memory=True)
    self._emulator.start()
    self._address = self._emulator._api._httpd.server_address
    store = self

    class Handler(server.BaseHTTPRequestHandler):
      protocol_version = 'HTTP/1.1'

      def log_message(self, *_):
        pass

      def __getattr__(self, name):
        # do_GET, do_POST and so on.
        if name.startswith('do_'):
          return lambda: store.handle(self)
        raise AttributeError(name)

    self._proxy = LoopbackServer(('127.0.0.1', 0), Handler)
    self._proxy.start()
    self.endpoint = f'http://127.0.0.1:{self._proxy.server_port}'
    self._forward(
      'POST',
      '/storage/v1/b?project=p',
      {'Content-Type': 'application/json'},
      json.dumps({'name': BUCKET}).encode(),
    )

  def close(self) -> None:
    self._proxy.shutdown()
    self._emulator.stop()

  def disturb(self, probability: float, seed: int) -> None:
    """Lets each request suffer some fault with a probability."""
    self._chooser, self._probability = random.Random(seed), probability

  def disturb_next(self, fault: str, method: str) -> None:
    """Lets the next request of a method suffer a fault."""
    self._planned.append((method, fault))

  def answer_all(self, status: int, body: bytes) -> None:
    """Gives all requests the same answer from now on, as no store would."""
    kind = {'Content-Type': 'application/json; charset=UTF-8'}
    self._answer_to_all = Reply(status, kind, body)

  def handle(self, handler: server.BaseHTTPRequestHandler) -> None:
    """Answers a request, or does what the network does to it."""
    body = _read_body(handler)
    with self._lock:
      range_header = handler.headers.get('Range')
      self.requests.append((handler.command, handler.path, range_header))
      fault = self._fault(handler.command)
      self._at_once += 1
      self.most_at_once = max(self.most_at_once, self._at_once)
    try:
      self._answer(handler, body, fault)
    finally:
      with self._lock:
        self._at_once -= 1

  def _answer(self, handler, body: bytes, fault: str | None) -> None:
    if fault in ('503', '429'):
      _send(handler, _error(int(fault), 'try again'))
      return
    if fault == 'reset':
      _reset(handler)
      return
    if self._answer_to_all:
      _send(handler, self._answer_to_all)
      return
    headers = dict(handler.headers)
    reply = self._process(handler.command, handler.path, headers, body)
    if fault == 'duplicate':
      reply = self._process(handler.command, handler.path, headers, body)
    if fault == 'lost_reply':
      _reset(handler)
      return
    _send(handler, reply, slowly=fault == 'slow_body')

  def _fault(self, method: str) -> str | None:
    for number, (wanted, fault) in enumerate(self._planned):
      if wanted == method:
        del self._planned[number]
        return fault
    if self._chooser and self._chooser.random() < self._probability:
      return self._chooser.choice(FAULTS)
    return None

  def _process(self, method, path, headers, body: bytes) -> Reply:
    with self._lock:
      path, headers, body = _without_parts(path, headers, body)
      query = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query)
      name = None
      if 'upload_id' in query:
        name = self._uploads_to_new_names.get(query['upload_id'][0])
      elif query.get('ifGenerationMatch') == ['0']:
        name = query.get('name', [None])[0]
      if name is not None and self._exists(name):
        return _error(412, 'conditionNotMet')
      reply = self._forward(method, path, headers, body)
      location = reply.headers.get('Location')
      if name is not None and location:
        upload = urllib.parse.parse_qs(urllib.parse.urlsplit(location).query)
        self._uploads_to_new_names[upload['upload_id'][0]] = name
      return reply

  def _exists(self, name: str) -> bool:
    quoted = urllib.parse.quote(name, safe='')
    path = f'/storage/v1/b/{BUCKET}/o/{quoted}'
    return self._forward('GET', path, {}, b'').status == 200

  def _forward(self, method, path, headers, body: bytes) -> Reply:
    with contextlib.closing(
      http.client.HTTPConnection(*self._address)
    ) as connection:
      kept = {
        name: value
        for name, value in headers.items()
        if name.lower() not in ('transfer-encoding', 'content-length')
      }
      connection.request(method, path, body or None, kept)
      answer = connection.getresponse()
      content = answer.read()
      return Reply(answer.status, dict(answer.getheaders()), content)


def _without_parts(path: str, headers: dict[str, str], body: bytes):
  """An upload in parts as a plain one: the emulator alters their bytes."""
  found = re.search('boundary="?([^";]+)', headers.get('Content-Type', ''))
  if 'uploadType=multipart' not in path or found is None:
    return path, headers, body
  about, content = body.split(b'--' + found[1].encode())[1:3]
  newline = b'\r\n' if about.startswith(b'\r\n') else b'\n'
  about, content = (
    part.split(2 * newline, 1)[1].removesuffix(newline)
    for part in (about, content)
  )
  name = urllib.parse.quote(json.loads(about)['name'], safe='')
  if not content:  # Which it knows in parts only.
    return f'{path}&name={name}', headers, body
  path = path.replace('uploadType=multipart', f'uploadType=media&name={name}')
  kind = {'Content-Type': 'application/octet-stream'}
  return path, {**headers, **kind}, content


def _read_body(handler) -> bytes:
  if handler.headers.get('Transfer-Encoding') != 'chunked':
    return handler.rfile.read(int(handler.headers.get('Content-Length') or 0))
  body = b''
  while count := int(handler.rfile.readline(), 16):
    body += handler.rfile.read(count)
    handler.rfile.readline()
  handler.rfile.readline()
  return body


def _error(status: int, message: str) -> Reply:
  error = {'code': status, 'message': message}
  return Reply(status, {}, json.dumps({'error': error}).encode())


def _reset(handler) -> None:
  handler.close_connection = True
  handler.connection.close()


def _send(handler, reply: Reply, *, slowly: bool = False) -> None:
  handler.send_response(reply.status)
  for name, value in reply.headers.items():
    if name.lower() not in ('content-length', 'date', 'server', 'connection'):
      handler.send_header(name, value)
  handler.send_header('Content-Length', str(len(reply.body)))
  handler.end_headers()
  parts = 10 if slowly else 1
  size = max(1, -(-len(reply.body) // parts))
  for start in range(0, len(reply.body), size):
    if slowly:
      time.sleep(0.02)
    handler.wfile.write(reply.body[start : start + size])
    handler.wfile.flush()
