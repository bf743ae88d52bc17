"""`python -m supernet.report ... --serve`: pages of runs over HTTP, made when they are asked for, so that they show runs at work.

A folder may hold runs of strangers. What is served are the pages of the runs that were found, by their names, and nothing else: no
address is made a path. A run whose folder holds links that lead out of it is not read. Every text is escaped and files are read with bounds
(`report.run_files`); the pages' policy lets no script run but ours. Without --host nobody but this machine reaches it; the host that a
request names must be the one that is served, so that no page of another site can read it by a name of its own.
"""

import hashlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from supernet.commands.many_runs import READ, names, statistics
from supernet.errors import UsageError
from supernet.report import page
from supernet.report.document import Section, document
from supernet.report.fleet import Row, row
from supernet.report.html import run_page
from supernet.report.runs_page import runs_page
from supernet.runs.folder import RunFolder
from supernet.runs.results import run_folders

LOCAL = ("127.0.0.1", "localhost", "::1")
LINKS = "its folder holds a link that leads out of it"
HEADERS = {
    "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache",
    "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
}
KEPT = 64  # pages in memory


@dataclass(frozen=True)
class Answer:
    tag: str
    html: bytes


class Pages:
    """What is served. Each page is made once for a state of the files that it shows."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = [root.resolve() for root in roots]
        self._lock = threading.Lock()  # one page is made at a time: a fleet of tabs must not take a fleet of cores
        self._pages: dict[str, Answer] = {}
        self._rows: dict[Path, tuple[str, Row]] = {}
        self._statistics: tuple[str, Any] = ("", "")

    def runs(self) -> dict[str, Path]:
        """The runs that there are now, by name."""
        found = run_folders(self.roots)
        by_path = names(found, self.roots)
        return {by_path[path]: path for path in found}

    def overview(self) -> Answer:
        with self._lock:
            runs = self.runs()
            stamps = {path: stamp(path) for path in runs.values()}
            tag = digest(*(f"{name} {stamps[path]}" for name, path in runs.items()))
            return self._kept("", tag, lambda: self._overview(runs, stamps))

    def _overview(self, runs: dict[str, Path], stamps: dict[Path, str]) -> str:
        refused = {path for path in runs.values() if escapes(path)}
        rows = []
        for path in runs.values():
            if path not in self._rows or self._rows[path][0] != stamps[path]:
                self._rows[path] = (stamps[path], _refused(path) if path in refused else row(path))
            rows.append(self._rows[path][1])
        finished = [r.path for r in rows if r.state == "finished"]
        tag = digest(*(stamps[path] for path in finished))
        if self._statistics[0] != tag:
            self._statistics = (tag, statistics(finished) if finished else "no run has finished")
        by_path = {path: name for name, path in runs.items()}
        title = self.roots[0].name if len(self.roots) == 1 else "Runs compared"
        return runs_page(title, rows, tables=self._statistics[1], live=True, named=lambda r: by_path[r.path],
                         link=lambda r: f"run/{quote(by_path[r.path])}")

    def run(self, name: str) -> Answer | None:
        """None where there is no such run."""
        with self._lock:
            path = self.runs().get(name)
            if path is None:
                return None
            make = (lambda: run_page(path, live=True)) if not escapes(path) else (lambda: _left_out(name))
            return self._kept(name, digest(name, stamp(path), LINKS if escapes(path) else ""), make)

    def _kept(self, key: str, tag: str, make: Callable[[], str]) -> Answer:
        known = self._pages.get(key)
        if known is None or known.tag != tag:
            known = Answer(tag, make().encode("utf-8", errors="replace"))
            self._pages.pop(key, None)
            self._pages[key] = known
            while len(self._pages) > KEPT:
                self._pages.pop(next(iter(self._pages)))
        return known


def stamp(run: Path) -> str:
    """Changes with the files that a run's pages are made of, and with whether it is at work."""
    parts = []
    newest = sorted((run / "checkpoints").glob("*.pt"))[-1:] if not (run / "alphas.npz").exists() else []
    for path in (*(run / name for name in (*READ, "genotype.json", "config.yaml", "environment.json")), *newest):
        try:
            known = path.stat()
            parts.append(f"{path.name} {known.st_mtime_ns} {known.st_size}")
        except OSError:
            parts.append(path.name)
    try:
        parts.append(str(RunFolder(run).is_locked()))
    except OSError:
        parts.append("unknown")
    return " ".join(parts)


def digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", errors="replace")).hexdigest()[:24]


def escapes(run: Path) -> bool:
    """Whether a link among the files that are read leads out of the run's folder."""
    for folder in (run, run / "checkpoints"):
        if folder.is_symlink():
            return True
        try:
            with os.scandir(folder) as entries:
                links = [Path(entry.path) for entry in entries if entry.is_symlink()]
        except OSError:
            continue
        if any(not link.resolve().is_relative_to(run.resolve()) for link in links):
            return True
    return False


def _refused(path: Path) -> Row:
    return Row(path, "", f"not read: {LINKS}", "", None, 0, None, {}, {}, {}, None)


def _left_out(name: str) -> str:
    return document(name, page.header(name, ""), [Section("refused", "Not read", page.paragraph(f"Left out: {LINKS}."))], live=True)


def application(pages: Pages, hosts: Sequence[str]) -> Any:
    """The ASGI application. hosts: the names under which requests may come."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, Response
    from starlette.routing import Route

    def answered(request: Request, found: Answer | None) -> Response:
        if found is None:
            text = "<!doctype html><title>No such run</title><p>There is no such run. <a href='/'>All runs</a></p>"
            return HTMLResponse(text, status_code=404, headers=HEADERS)
        head = {**HEADERS, "ETag": f'"{found.tag}"', "Content-Security-Policy": "frame-ancestors 'none'"}
        if request.headers.get("if-none-match") == head["ETag"]:
            return Response(status_code=304, headers=head)
        return HTMLResponse(found.html, headers=head)

    def overview(request: Request) -> Response:
        return answered(request, pages.overview())

    def run(request: Request) -> Response:
        return answered(request, pages.run(request.path_params["name"]))

    return Starlette(routes=[Route("/", overview, methods=["GET"]), Route("/run/{name:path}", run, methods=["GET"])],
                     middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))])


def serve(roots: Sequence[Path], host: str, port: int) -> int:
    """Until Ctrl-C. Raises Mendable: there are no runs, the extra is missing, or the address cannot be had."""
    try:
        import uvicorn
        from starlette.applications import Starlette  # noqa: F401  (to be missed here, not at the first request)
    except ImportError as error:
        raise UsageError(f"--serve needs starlette and uvicorn (no {error.name} here): pip install 'supernet[serve]'") from error
    pages = Pages(roots)
    count = len(pages.runs())
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        raise UsageError(f"--host {host} --port {port}: cannot listen there ({why})") from error
    with listening:
        at = listening.getsockname()[1]
        named = f"[{host}]" if ":" in host else host
        print(f"serving   {count} runs on http://{named}:{at}/  (Ctrl-C ends it)", flush=True)
        if host not in LOCAL:
            print(f"note: whoever reaches {escape(host)} port {at} sees these runs; there is no password", file=sys.stderr, flush=True)
        hosts = [*LOCAL, "[::1]", host] if host not in ("0.0.0.0", "::") else ["*"]
        settings = uvicorn.Config(application(pages, hosts), log_level="error", access_log=False, timeout_graceful_shutdown=2)
        try:
            uvicorn.Server(settings).run(sockets=[listening])
        except KeyboardInterrupt:
            pass
    print("ended")
    return 0
