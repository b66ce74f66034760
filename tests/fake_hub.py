"""A hub of folders on this machine, as far as huggingface_hub asks it: what a repository is, and its files."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FakeHub:
    """Serves `{(kind, "owner/name"): folder}`; every repository has one commit, which is also its branch `main`.

    As a context manager: `with FakeHub({...}) as hub: ... hub.url`. `asked` holds the paths of all requests.
    """

    def __init__(self, folders: dict[tuple[str, str], Path]):
        self.folders, self.asked = folders, []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def commit(self, kind: str, repo: str) -> str:
        """Of what the folder holds now."""
        content = b"".join(path.name.encode() + path.read_bytes() for path in files_in(self.folders[kind, repo]))
        return hashlib.sha1(content).hexdigest()

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.asked.append(self.path)
                path = self.path.split("?")[0]
                if found := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
                    self._tell(*found.groups())
                elif found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                    is_data, repo, revision, name = found.groups()
                    self._send("dataset" if is_data else "model", repo, revision, name)
                else:
                    self._answer(404, b"", {})

            do_HEAD = do_GET

            def _fault(self, kind, repo, revision):
                if (kind, repo) not in hub.folders:
                    return "RepoNotFound"
                return None if revision in (None, "main", hub.commit(kind, repo)) else "RevisionNotFound"

            def _tell(self, kind, repo, revision):
                if fault := self._fault(kind, repo, revision):
                    return self._answer(404, b"", {"X-Error-Code": fault})
                folder = hub.folders[kind, repo]
                siblings = [
                    {"rfilename": path.relative_to(folder).as_posix(), "size": path.stat().st_size}
                    for path in files_in(folder)
                ]
                body = {"id": repo, "sha": hub.commit(kind, repo), "siblings": siblings}
                self._answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

            def _send(self, kind, repo, revision, name):
                fault = self._fault(kind, repo, revision)
                file = hub.folders.get((kind, repo), Path("/nowhere")) / name
                if fault or not file.is_file():
                    return self._answer(404, b"", {"X-Error-Code": fault or "EntryNotFound"})
                data = file.read_bytes()
                etag = hashlib.sha256(data).hexdigest()
                self._answer(200, data, {"X-Repo-Commit": hub.commit(kind, repo), "ETag": f'"{etag}"'})

            def _answer(self, status, body, headers):
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
