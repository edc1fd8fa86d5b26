"""An MLflow server: bounded patience, and its troubles in one sentence each.

MLflow itself retries for minutes where a server is gone, with a warning of each try.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..io.addresses import without_login
from .trouble import WITHOUT, StoreError

SETTINGS = {  # MLflow's environment variables; what the user has set counts
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # addresses are printed here, with the right view
}


class ServerError(StoreError):
    """The server does not answer, or refuses."""


@dataclass(frozen=True)
class Server:
    """A server that runs are recorded on.

    Attributes:
        uri: Its address, `http://` or `https://`; it may hold a name and a password.
    """

    uri: str
    artifact_location = None  # the server decides

    @property
    def name(self) -> str:
        """The address without name and password."""
        return without_login(self.uri).rstrip("/")

    def prepare(self) -> None:
        """Bound how long MLflow waits for an answer: three tries of ten seconds, unless the environment says more."""
        for variable, value in SETTINGS.items():
            os.environ.setdefault(variable, value)
        logging.getLogger("urllib3.connectionpool").addFilter(_is_no_retry)  # one sentence says it instead

    def create(self) -> None:
        """Nothing: the server has its own database."""

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Run the block, and turn what MLflow raises into one sentence.

        Raises:
            ServerError: with the sentence.
        """
        try:
            yield
        except Exception as error:
            # known by the module's name, since importing MLflow takes seconds
            theirs = type(error).__module__.partition(".")[0] in ("mlflow", "requests", "urllib3")
            if not theirs and not isinstance(error, ConnectionError | TimeoutError):
                raise
            raise self._trouble(error) from error

    def _trouble(self, error: Exception) -> ServerError:
        code, said = getattr(error, "error_code", ""), str(error).strip().partition("\n")[0]
        if code in ("PERMISSION_DENIED", "UNAUTHENTICATED") or " 401" in said or " 403" in said:
            return ServerError(
                f"the MLflow server {self.name} refuses without the right name and password; set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
                WITHOUT,
            )
        silent = said.startswith("API request to") or "Max retries" in said or "timed out" in said
        if silent or isinstance(error, ConnectionError | TimeoutError):
            return ServerError(
                f"the MLflow server {self.name} does not answer; start it", "check tracking.uri", WITHOUT
            )
        return ServerError(f"the MLflow server {self.name} refused ({said[:200]})", WITHOUT)


def _is_no_retry(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Retrying (")
