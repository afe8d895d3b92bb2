"""A server of datasets that speaks what the client of the hub asks for."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server has, and what it was asked for. A dataset that is a number is that status."""

    datasets: dict[str, Any]
    asked: list[tuple[str, str]] = field(default_factory=list)
    break_off: set[str] = field(default_factory=set)
    """Files of which the first answer stops half way."""
    url: str = ""

    def given(self) -> list[str]:
        """Names of the files that were downloaded."""
        got = [path for command, path in self.asked if command == "GET" and "/resolve/" in path]
        return sorted(path.rpartition("/")[2] for path in got)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = request.path.partition("?")[0].strip("/").split("/")
        self.asked.append((request.command, request.path))
        api = parts[0] == "api"
        name = "/".join(parts[2:4] if api else parts[1:3])
        files = self.datasets.get(name, 404)
        if isinstance(files, int):
            codes = {403: "GatedRepo", 404: "RepoNotFound"}
            headers = {"X-Error-Code": codes[files]} if files in codes else {}
            send(request, files, b"{}", headers)
        elif api and parts[4] == "revision":
            send(request, 200, json.dumps({"id": name, "sha": COMMIT, "siblings": []}).encode())
        elif api and parts[4] == "tree":
            tree = [
                {"type": "file", "path": path, "size": len(content), "oid": oid(content)}
                for path, content in files.items()
            ]
            send(request, 200, json.dumps(tree).encode())
        else:
            self._file(request, "/".join(parts[5:]), files)

    def _file(self, request: BaseHTTPRequestHandler, path: str, files: dict[str, bytes]) -> None:
        content = files[path]
        headers = {"ETag": f'"{oid(content)}"', "X-Repo-Commit": COMMIT}
        begin = int(request.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        if path in self.break_off and request.command == "GET":
            self.break_off.discard(path)
            send(request, 200, content[: len(content) // 2], headers, len(content))
            request.close_connection = True
            return
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        send(request, 206 if begin else 200, content[begin:], headers)


def oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def send(
    request: BaseHTTPRequestHandler,
    status: int,
    content: bytes,
    headers: dict[str, str] | None = None,
    size: int | None = None,
) -> None:
    request.send_response(status)
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(content) if size is None else size))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(content)


@contextmanager
def served(datasets: dict[str, Any], **settings: Any) -> Iterator[Hub]:
    there = Hub(datasets, **settings)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            there.answer(self)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    there.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield there
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
