"""`adaptive-diffusion upload`: record what an MLflow server did not take because it had gone."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from ..errors import UnusableFile, UserError
from ..io.addresses import without_login
from ..io.counted import count
from ..program import command
from ..tracking.mlflow import ADDRESS
from ..tracking.record import FILE
from ..tracking.trouble import without_settings
from ..tracking.upload import upload

SKIPPED = (
    "skipped: its process still works on it, or is one of another machine; --ended says that all of those have ended"
)


@without_settings()
def main(argv: list[str]) -> int:
    """Record the runs that were kept in some folders, and those below them; what is recorded is forgotten there.

    Returns:
        The exit code: 2 if a record is damaged.
    """
    parser = argparse.ArgumentParser(prog=command("upload"), description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of a run or a sweep, or above them")
    parser.add_argument("--uri", help="address of the server; default: MLFLOW_TRACKING_URI, else as it was")
    ended = "processes of other machines and containers, which this one does not see, have ended"
    parser.add_argument("--ended", action="store_true", help=ended)
    options = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s")

    if missing := [folder for folder in options.folders if not folder.is_dir()]:
        raise UserError(f"there is no folder {missing[0]}; give the folder of a run, of a sweep, or one above them")
    files = sorted({file for folder in options.folders for file in folder.rglob(FILE)})
    if not files:
        where = ", ".join(map(str, options.folders))
        raise UserError(f"there is no {FILE} in {where}: every run there is recorded, or was not meant for a server")

    uri = options.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri and not ADDRESS.match(uri):
        name = "--uri" if options.uri else "MLFLOW_TRACKING_URI"
        raise UserError(f"{name} must begin with http://, https:// or sqlite:///, got {without_login(uri)!r}")

    recorded, damaged = 0, 0
    for file in files:
        try:
            page = upload(file, uri, options.ended)
        except UnusableFile as error:  # the others are recorded all the same
            print(error.trouble, file=sys.stderr, flush=True)
            damaged += 1
            continue
        print(f"{file.parent}\n  {page or SKIPPED}", flush=True)
        recorded += page is not None
    print(f"{count(recorded, 'run')} recorded")
    return 2 if damaged else 0
