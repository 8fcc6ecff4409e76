"""Errors of Google's credentials in one line."""

from collections.abc import Iterator
import contextlib

from google.auth import exceptions

from influence_core import errors


@contextlib.contextmanager
def credential_errors() -> Iterator[None]:
  """Raises `errors.InputError` where credentials are missing or refused."""
  try:
    yield
  except exceptions.GoogleAuthError as error:
    raise errors.InputError(
      f'no Google credentials ({error}); run gcloud auth application-default '
      'login, or set GOOGLE_APPLICATION_CREDENTIALS'
    ) from error
