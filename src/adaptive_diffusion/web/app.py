"""`adaptive-diffusion app`: a page to draw, compare, calibrate and tune with, for people who would rather look.

It answers this machine only, unless a password is given. Settings of sample.py that follow hold for every run, e.g.
`tracking=none` or `paths.outputs=FOLDER`.
"""

from __future__ import annotations

import argparse
import hmac
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..cli.arguments import for_hydra
from ..cli.catalog import Catalog
from ..cli.entry import ROOT, sentence_and_code
from ..cli.schemas import register
from ..diffusion.checks import check_count
from ..errors import MachineError, MissingPackage, UserError
from ..io.files import home_path
from ..program import command, conf, pip_install
from ..runs.build import build
from ..runs.checks import as_user_error, checked
from .bounds import KEYS, LARGEST_UPLOAD, WAITING, Offer, Offers
from .jobs import job
from .sessions import Sessions
from .worker import Worker

PASSWORD = "ADAPTIVE_DIFFUSION_PASSWORD"  # in the environment, instead of --password
SHORTEST = 12  # characters of a password
HERE = ("127.0.0.1", "::1", "localhost")
LAUNCH: dict[str, Any] = {  # of Gradio: only the page, nothing of the machine beside it, nothing from afar
    **dict.fromkeys(
        ("share", "show_error", "run_history", "enable_monitoring", "mcp_server", "ssr_mode", "pwa"), False
    ),
    **dict.fromkeys(("prevent_thread_lock", "quiet", "strict_cors"), True),
    "allowed_paths": [],
    "footer_links": [],
    "max_file_size": LARGEST_UPLOAD,
}


def main(argv: list[str]) -> None:
    """Serve the page until the program is interrupted."""
    parser = argparse.ArgumentParser(prog=command("app"), description=__doc__)
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of sample.py, for every run")
    parser.add_argument(
        "--model", action="append", default=[], help="checkpoint, or folder of a pipeline, to offer as well; repeatable"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; another than this takes a password")
    parser.add_argument("--port", type=int, default=7860, help="port to listen at; 0: a free one")
    parser.add_argument("--password", help=f"asked of whoever opens the page; better given in {PASSWORD}")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    options = parser.parse_args(argv)

    with as_user_error():
        check_count("--port", options.port, 0, 65535)
    password = options.password if options.password is not None else os.environ.get(PASSWORD)
    check_access(options.host, password)
    common = common_settings(options.settings)
    prepare_process()

    worker = Worker()
    try:
        _gradio()
        offers = worker.do(partial(offered, options.model, common))
        where = {"host": options.host, "port": options.port}
        with served(offers, worker, **where, password=password, show=options.open) as address:
            print(f"open {address} (Ctrl-C ends this)", flush=True)
            threading.Event().wait()
    finally:
        worker.close()


def check_access(host: str, password: str | None) -> None:
    """Refuse to let other machines in without a password, and a short one.

    Raises:
        UserError: saying so.
    """
    if password is None and host not in HERE:
        raise UserError(f"--host {host} lets other machines in; give a password in {PASSWORD}, or leave --host out")
    if password is not None and len(password) < SHORTEST:
        raise UserError(f"the password must have at least {SHORTEST} characters")


def common_settings(given: Sequence[str]) -> tuple[str, ...]:
    """The settings for every run, as Hydra reads them.

    Raises:
        UserError: for one that the page has a control for.
    """
    for setting in given:
        key = setting.partition("=")[0].lstrip("+~")
        if key in KEYS or key.partition(".")[0] in ("model", "metrics", "benchmark", "experiment"):
            instead = "give --model FILE" if key.startswith("model") else "leave it out"
            raise UserError(f"{setting} cannot be given here: the page decides it; {instead}")
    return tuple(for_hydra(given, Catalog.of(conf(), given)))


def offered(models: Sequence[str], common: Sequence[str]) -> Offers:
    """Everything that can be chosen. Each model is loaded once, so that a wrong file is refused at the start.

    Args:
        models: Checkpoints and folders of pipelines, besides the shipped model.
        common: Settings for every run.

    Raises:
        UserError: for what cannot be used.
    """
    catalog = Catalog.of(conf(), [])
    found = [_offer("shipped", (), common)]
    for given in models:
        path = home_path(given).absolute()
        kind = "diffusers" if path.is_dir() else "checkpoint"
        name = path.name if path.is_dir() else path.stem
        found.append(_offer(name, tuple(for_hydra([f"model={kind}", f"model.path={path}"])), common))
    if len({offer.name for offer in found}) < len(found):
        raise UserError("two models have the same name; rename one of the files")
    schedulers, guidance, grids = (tuple(catalog.options(group)) for group in ("scheduler", "guidance", "grid"))
    return Offers(tuple(found), schedulers, guidance, tuple(common), grids)


def _offer(name: str, settings: tuple[str, ...], common: Sequence[str]) -> Offer:
    try:
        with job([*common, *settings]) as cfg:
            model = build(checked(cfg), "model")
    except Exception as error:
        sentence, code = sentence_and_code(error, "sample", [*common, *settings])
        raise (UserError if code == 2 else MachineError)(sentence) from error
    domains = (model.domains or {}) if model.conditional else {}
    return Offer(name, settings, {domain: tuple(labels) for domain, labels in domains.items()}, model.identity)


@contextmanager
def served(
    offers: Offers,
    worker: Worker,
    *,
    host: str = "127.0.0.1",
    port: int,
    password: str | None = None,
    show: bool = False,
) -> Iterator[str]:
    """A block in which the page is served, from threads of its own; its files go at the end.

    Args:
        offers: What can be chosen.
        worker: The thread that computes.
        host: Address to listen at.
        port: Port to listen at; 0: a free one.
        password: Asked of whoever opens the page; None: nothing is asked.
        show: Open the page in the browser.

    Yields:
        The address of the page.

    Raises:
        MachineError: if the port cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="adaptive-diffusion-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # read when the page is built
        page, sessions = _gradio(), Sessions(Path(folder))
        from .theme import LOOK

        blocks = page.page(offers, worker, sessions).queue(max_size=WAITING, api_open=False)
        try:
            _, address, _ = blocks.launch(
                server_name=host,
                server_port=port or _free_port(host),
                inbrowser=show,
                auth=None if password is None else partial(_lets_in, password),
                auth_message="Any name, and the password that the server was started with.",
                **LOOK,
                **LAUNCH,
            )
        except OSError as error:
            where = f"{host}, port {port}" if port else host
            raise MachineError(f"cannot listen at {where} ({error}); give another --port or --host") from error
        try:
            yield address
        finally:
            sessions.close_all()
            blocks.close(verbose=False)


def _gradio() -> Any:
    """The module that builds the page: it needs Gradio, which then reports nothing to anybody."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        from . import page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise MissingPackage(f"the page needs Gradio, which is not installed: {pip_install('web')}") from error
    return page


def _free_port(host: str) -> int:
    family, *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family) as probe:
        probe.bind(address)
        return int(probe.getsockname()[1])


def prepare_process() -> None:
    """What Hydra's jobs in this process refer to, and a log for the one who started it."""
    os.environ.setdefault(ROOT, str(Path.cwd()))
    register()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger(__name__.partition(".")[0]).setLevel(logging.INFO)


def _lets_in(password: str, _: str, given: str) -> bool:
    """Whether a password is right, in a time that tells nothing."""
    return hmac.compare_digest(given.encode(), password.encode())
