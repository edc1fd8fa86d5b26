"""MLflow's SQLite file: made whole, checked before use, and its troubles in one sentence each.

MLflow itself retries for minutes where a database is locked, writes into the database of another program, and cannot go
on with a database whose creation was interrupted.
"""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..errors import MachineError, UnusableFile, UserError
from ..io.files import partial_path
from .trouble import WITHOUT, StoreError

ELSEWHERE = "set paths.mlruns elsewhere"
LOCK_TIMEOUT = 5.0  # seconds, unless a configuration says another
TABLES = {"alembic_version", "experiments", "runs", "params", "metrics", "tags"}  # of every database of MLflow


class DatabaseError(StoreError):
    """The database, or the disk under it, refuses."""


@dataclass(frozen=True)
class Database:
    """The file that runs are recorded in.

    Attributes:
        path: The SQLite file, absolute.
        artifacts: Folder of the files of runs, absolute.
        lock_timeout: Seconds to wait where another program has locked the file, > 0.
    """

    path: Path
    artifacts: Path
    lock_timeout: float = LOCK_TIMEOUT

    @property
    def uri(self) -> str:
        """MLflow's name for the database."""
        return _uri(self.path)

    @property
    def artifact_location(self) -> str:
        """MLflow's name for the folder: its path, or a URI where the path has signs with a meaning in URIs."""
        return str(self.artifacts) if _is_plain(self.artifacts) else self.artifacts.as_uri()

    def prepare(self) -> None:
        """Make the folders of the file and of the artifacts, and check the file; see `check`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.artifacts.mkdir(parents=True, exist_ok=True)
        self.check()

    def check(self) -> None:
        """Check that the file, if there is one, can be written and is MLflow's.

        Raises:
            UnusableFile: if it belongs to another program.
            DatabaseError: if it is a link to nowhere.
            sqlite3.Error: if it is locked or damaged.
        """
        if self.path.is_symlink() and not self.path.exists():
            raise DatabaseError(
                f"{self.path} is a link to {os.readlink(self.path)}, which does not exist; make that place "
                "available, or remove the link",
                WITHOUT,
            )
        if not self.path.exists():
            return

        with closing(sqlite3.connect(self.path, timeout=self.lock_timeout)) as connection:
            connection.execute("BEGIN IMMEDIATE")  # fails where another program writes
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            connection.rollback()

        if tables and not tables >= TABLES:
            raise UnusableFile(
                f"{self.path} is a database of another program (its tables: {', '.join(sorted(tables)[:4])})",
                advice="give a file of its own as tracking.database, or do without: tracking=none",
            )

    def create(self) -> None:
        """Make the file, whole or not at all, unless there is one.

        MLflow takes seconds over a chain of migrations. It makes them beside the place of the file, and the result is
        linked there: unlike a renaming, a link does not replace a file that another process has put there meanwhile.

        Raises:
            UserError: if this SQLAlchemy would take the path for another one.
        """
        self._check_name()
        if self.path.exists():
            return

        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        temporary = partial_path(self.path)
        try:
            SqlAlchemyStore(_uri(temporary), self.artifact_location).engine.dispose()
            try:
                os.link(temporary, self.path)
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Check the file, then run the block and turn what MLflow and SQLite raise into one sentence.

        Raises:
            DatabaseError: with the sentence.
            UnusableFile: see `check`.
        """
        try:
            self.check()
            yield
        except (MachineError, UnusableFile, UserError):
            raise
        except Exception as error:
            # MLflow and SQLAlchemy wrap SQLite's errors in errors of their own
            link: BaseException | None = error
            while link is not None and not isinstance(link, sqlite3.Error):
                link = link.__cause__ or link.__context__

            if link is not None:
                raise self._trouble(str(link)) from error
            if type(error).__name__ == "MlflowException":
                raise self._refusal(str(error).strip()) from error
            raise

    def _check_name(self) -> None:
        from sqlalchemy.engine import make_url

        if make_url(self.uri).database != str(self.path):
            raise UserError(
                f"MLflow cannot open {self.path} because of a ?, # or % in its path; set paths.mlruns elsewhere, "
                "or upgrade: pip install -U 'sqlalchemy>=2.1'"
            )

    def _refusal(self, message: str) -> DatabaseError:
        """An error of MLflow in its own words, unless the database is of another version."""
        schema = re.search(r"(?:found version|revision identified by) '?(\w+)", message)
        if not schema:
            return DatabaseError(f"MLflow refused ({self.path}): {message.splitlines()[0]}")

        import mlflow

        # this MLflow can upgrade a schema that it has a migration from
        known = Path(mlflow.__file__).parent.glob(f"store/db_migrations/versions/{schema[1]}_*.py")
        if any(known):
            upgrade = f"mlflow db upgrade {shlex.quote(self.uri)}"
            return DatabaseError(
                f"the MLflow database {self.path} is older than MLflow {mlflow.__version__}; run: {upgrade}"
            )

        return DatabaseError(
            f"the MLflow database {self.path} was made by a newer version than MLflow {mlflow.__version__}, which "
            "is installed; upgrade it (pip install -U mlflow)",
            ELSEWHERE,
        )

    def _trouble(self, message: str) -> DatabaseError:
        """An error of SQLite."""
        what = f"the MLflow database {self.path}"

        if "locked" in message:
            sentence = f"{what} is locked by another program; close that program"
            return DatabaseError(sentence, "set tracking.lock_timeout higher", WITHOUT)
        if any(sign in message for sign in ("malformed", "not a database", "no such", "already exists")):
            return DatabaseError(
                f"{what} is damaged or no MLflow database ({message}); give another one",
                "move it away, and a new one will be made",
                WITHOUT,
            )
        if "full" in message:
            return DatabaseError(f"the disk is full: {what} cannot grow; free some space", ELSEWHERE, WITHOUT)
        return DatabaseError(f"{what} cannot be used ({message}); check who may write there", ELSEWHERE, WITHOUT)


def _is_plain(path: Path) -> bool:
    return not set("?#%") & set(str(path))


def _uri(database: Path) -> str:
    # the driver is named only for escaped paths: MLflow would make folders of their signs
    return f"sqlite:///{database}" if _is_plain(database) else f"sqlite+pysqlite:///{quote(str(database))}"
