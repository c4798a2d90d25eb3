"""A Grafana that keeps boards in memory and answers as its documented HTTP API does.

No real Grafana is at hand where these tests run.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "glsa_kept_secret_0123456789"

Answer = tuple[int, Any]


class FakeGrafana:
    """`boards` by uid, each with its versions; `before`: may answer a request in our stead."""

    def __init__(self) -> None:
        self.boards: dict[str, list[dict[str, Any]]] = {}
        self.folders = {""}
        self.place: dict[str, str] = {}
        self.requests: list[tuple[str, str]] = []
        self.meta: dict[str, Any] = {}
        self.versions_readable = True
        self.listed_plainly = False
        self.before: Callable[[str, str], tuple[int, str, bytes] | None] = lambda *_: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> FakeGrafana:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def written(self) -> int:
        """How many boards were posted."""
        return sum(method == "POST" for method, _ in self.requests)

    def edit(self, uid: str, **changes: Any) -> None:
        """What somebody does at the screen."""
        now = self.boards[uid][-1]
        board = {**now["data"], **changes, "version": now["version"] + 1}
        self.boards[uid].append({"version": now["version"] + 1, "message": "", "data": board})

    def answer(self, method: str, path: str, body: bytes, authorization: str) -> Answer:
        if authorization != f"Bearer {TOKEN}":
            return 401, {"message": "Invalid API key"}
        if method == "POST" and path == "/api/dashboards/db":
            return self._save(json.loads(body))
        uid, _, rest = path.removeprefix("/api/dashboards/uid/").partition("/")
        if uid not in self.boards:
            return 404, {"message": "Dashboard not found", "traceID": ""}
        if rest:
            return self._versions(uid)
        meta = {"folderUid": self.place[uid], "provisioned": False, **self.meta}
        return 200, {"dashboard": self.boards[uid][-1]["data"], "meta": meta}

    def _versions(self, uid: str) -> Answer:
        if not self.versions_readable:
            return 403, {"message": "You'll need additional permissions"}
        newest = [
            {"version": one["version"], "message": one["message"]} for one in self.boards[uid]
        ][::-1]
        return 200, newest if self.listed_plainly else {"continueToken": "", "versions": newest}

    def _save(self, posted: dict[str, Any]) -> Answer:
        board, uid = posted["dashboard"], posted["dashboard"]["uid"]
        if posted["folderUid"] not in self.folders:
            return 404, {"message": "folder not found"}
        there = self.boards.setdefault(uid, [])
        if there and not posted["overwrite"] and board.get("version") != there[-1]["version"]:
            message = "The dashboard has been changed by someone else"
            return 412, {"message": message, "status": "version-mismatch"}
        version = len(there) + 1
        data = {**board, "id": board.get("id", 7), "version": version}
        there.append({"version": version, "message": posted["message"], "data": data})
        self.place[uid] = posted["folderUid"]
        return 200, {"uid": uid, "status": "success", "version": version}


def _handler(grafana: FakeGrafana) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._respond("GET")

        def do_POST(self) -> None:
            self._respond("POST")

        def _respond(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            grafana.requests.append((method, path))
            given = grafana.before(method, path)
            if given is None:
                token = self.headers.get("Authorization", "")
                status, answer = grafana.answer(method, path, body, token)
                given = status, "application/json", json.dumps(answer).encode()
            self._send(*given)

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", body.decode())
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    return Handler
