"""`adaptive-diffusion ui`: MLflow's pages about recorded runs.

There are no usage reports; one worker and no job queue halve the memory.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

from ..errors import UserError
from ..program import command
from .database import Database
from .trouble import without_settings

DATABASE, PORT = Path("mlruns", "mlflow.db"), 5001  # 5000 is AirPlay on a Mac
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def main(argv: list[str]) -> None:
    """Take the place of this process with MLflow's server of the pages, on this machine alone."""
    parser = argparse.ArgumentParser(prog=command("ui"), description=__doc__)
    parser.add_argument("database", nargs="?", type=Path, default=DATABASE, help=f"default: {DATABASE}")
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}")
    options = parser.parse_args(argv)
    if not 0 < options.port < 65536:
        raise UserError(f"--port must lie in 1..65535, got {options.port}")
    if not options.database.is_file():
        raise UserError(f"there is no database {options.database}; what sample and train print after `look` names it")

    database = Database(options.database.absolute(), options.database.absolute().parent)
    with without_settings(), database.translated():
        pass  # it is MLflow's, and can be used
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", options.port)) == 0:
            raise UserError(f"something answers at port {options.port} already; end it, or give another --port")

    print(
        f"starting MLflow's pages about {options.database}: http://127.0.0.1:{options.port} in some seconds", flush=True
    )
    pages = ["mlflow", "ui", "--backend-store-uri", database.uri, "--workers", "1", "--port", str(options.port)]
    os.execve(sys.executable, [sys.executable, "-m", *pages], {**QUIET, **os.environ})
