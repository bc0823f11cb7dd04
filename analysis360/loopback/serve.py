"""Running the server: in a thread for tests and notebooks, or as a command."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from analysis360.errors import SeriesError
from analysis360.loopback.faults import Faults

if TYPE_CHECKING:
    import uvicorn

    from analysis360.loopback.counts import Counts
    from analysis360.loopback.mount import Mount
    from analysis360.loopback.store import Store

__all__ = ["Loopback", "serve"]

UPLOAD_BYTES = 50 * 10**9
PAGE = 1000
STARTED_SECONDS = 20.0


class Loopback:
    """A Hub of one's own, served from a thread while the `with` lasts.

        with Loopback(folder) as hub:
            HfApi(endpoint=hub.endpoint).list_repo_refs("local/tiny")

    `folder` is a series (mounted, read-only) or a store (made where there is none). `tokens` gives, for each
    token, the namespaces its holder may write in, the first of them the user's name; without any, everyone may
    write. `page` is the number of entries in one answer of a listing, `limit` the bytes one upload may have.
    Raises SeriesError for a folder or a port that cannot be had, and where the server is not installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        faults: Faults | None = None,
        tokens: Mapping[str, Sequence[str]] | None = None,
        page: int = PAGE,
        limit: int = UPLOAD_BYTES,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.faults = faults or Faults()
        self.source = _source(Path(folder))
        try:
            self._socket = _bound(host, port)
            self._server, self.counts = _server(
                self.source, host, self.faults, tokens=tokens, page=page, limit=limit
            )
        except BaseException:
            self.source.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        self.endpoint = f"http://{shown}:{self.port}"
        """What to give as HF_ENDPOINT."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loopback-hub", daemon=True)

    @property
    def store(self) -> Store:
        """The store behind it, to look at or change directly. Raises TypeError for a mounted series."""
        from analysis360.loopback.store import Store

        if not isinstance(self.source, Store):
            raise TypeError("a mounted series has no store")
        return self.source

    def __enter__(self) -> Loopback:
        self._thread.start()
        waited = threading.Event()
        for _ in range(int(STARTED_SECONDS / 0.01)):
            if self._server.started or self._ended.is_set():
                break
            waited.wait(0.01)
        if not self._server.started:
            self.__exit__(None, None, None)
            raise SeriesError(f"the server at {self.endpoint} did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._ended.wait()
        self._thread.join()
        self._socket.close()
        self.source.close()

    def wait(self) -> None:
        """Until the server ends or KeyboardInterrupt."""
        while not self._ended.wait(0.5):  # no join: interrupted, it would take the thread for ended
            pass

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._ended.set()


def serve(folder: Path, host: str = "127.0.0.1", port: int = 8360) -> None:
    """Serve a series or a store until Ctrl-C, and say how to use it.

    Raises SeriesError: the folder is missing or holds something else, the port is taken.
    """
    if not folder.is_dir():
        raise SeriesError(
            f"{folder} is no folder; give a series, or make an empty folder for a store: mkdir {folder}"
        )
    with Loopback(folder, host=host, port=port) as hub, contextlib.suppress(KeyboardInterrupt):
        for line in _instructions(hub):
            print(line, flush=True)
        hub.wait()


def _instructions(hub: Loopback) -> list[str]:
    """Two lines to type in another terminal."""
    from analysis360.loopback.mount import Mount

    mounted = isinstance(hub.source, Mount)
    name = (
        hub.source.model
        if isinstance(hub.source, Mount)
        else next(iter(hub.source.names("models")), "ORG/NAME")
    )
    uploads = "" if mounted else " HF_HUB_DISABLE_XET=1"  # uploads would ask for Xet, downloads do not
    return [
        f"export HF_ENDPOINT={hub.endpoint}{uploads}",
        f"analysis360 memorization --series {name}",
    ]


def _source(folder: Path) -> Store | Mount:
    try:
        from analysis360.loopback.mount import Mount
        from analysis360.loopback.store import Store
    except ImportError as error:
        raise _not_installed(error) from None
    return Mount(folder) if (folder / "series.toml").is_file() else Store(folder)


def _server(
    source: Store | Mount,
    host: str,
    faults: Faults,
    *,
    tokens: Mapping[str, Sequence[str]] | None,
    page: int,
    limit: int,
) -> tuple[uvicorn.Server, Counts]:
    try:
        import uvicorn

        from analysis360.loopback.access import Access
        from analysis360.loopback.application import Application
    except ImportError as error:
        raise _not_installed(error) from None
    application = Application(source, host=host, faults=faults, access=Access(tokens), page=page, limit=limit)
    config = uvicorn.Config(
        application,
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
        proxy_headers=False,
        server_header=False,
    )
    return uvicorn.Server(config), application.counts


def _not_installed(error: ImportError) -> SeriesError:
    return SeriesError(f"serving a Hub needs {error.name}: pip install starlette uvicorn tomli-w")


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise SeriesError(f"cannot serve at {host}:{port}: {reason}; choose another --port") from None
    return bound
