"""A Hub in memory that speaks the real protocol to the real clients (huggingface_hub, datasets; no Xet).

One commit is one snapshot of files. Reading a private repository and every writing need a token. Faults are
injected by (method, path regex); a route that is not known answers 404 UnknownRoute and is kept in `unknown`,
so that a test can fail loudly when a new client version asks something else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".parquet", ".safetensors", ".png", ".bin", ".pt")
REPO = r"(?P<namespace>[\w.-]+)/(?P<name>[\w.-]+)"
API = rf"/api/(?P<kind>model|dataset)s/{REPO}"
FILES = rf"/(?P<plural>datasets/)?{REPO}"


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class StoredFile:
    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n"
        return git_oid(pointer % (self.sha256.encode(), len(self.data)) if self.lfs else self.data)


@dataclass
class Repo:
    """A repository: its commits, oldest first, each (sha, title, path -> file)."""

    kind: str
    id: str
    private: bool
    commits: list[tuple[str, str, dict[str, StoredFile]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.commit("initial commit", {".gitattributes": StoredFile(b"*.parquet filter=lfs\n", lfs=False)})

    def commit(self, title: str, files: dict[str, StoredFile]) -> str:
        content = json.dumps([self.id, len(self.commits), sorted((p, f.sha256) for p, f in files.items())])
        sha = hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest()
        self.commits.append((sha, title, files))
        return sha

    def put(self, **files: bytes) -> None:
        """Commit files behind everybody's back; a double underscore in a name stands for a dot."""
        added = {name.replace("__", "."): data for name, data in files.items()}
        stored = {name: StoredFile(data, name.endswith(LFS_SUFFIXES)) for name, data in added.items()}
        self.commit("put", {**self.files, **stored})

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, StoredFile]:
        return self.commits[-1][2]

    def at(self, revision: str) -> tuple[str, dict[str, StoredFile]] | None:
        if revision == "main":
            return self.head, self.files
        return next(((sha, files) for sha, _, files in self.commits if sha == revision), None)


Fault = int | str | tuple[int, dict[str, str]] | Callable[[], None]


class HubServer:
    """The server; use it as a context manager.

    Args:
        tokens: Token -> user name. A user writes below their own name and below "org".
    """

    def __init__(self, tokens: dict[str, str]) -> None:
        self.tokens = tokens
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[tuple[str, str, list[Fault]]] = []
        self.requests: list[str] = []
        self.unknown: list[str] = []
        self.lock = threading.RLock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home: Path, token: str | None) -> dict[str, str]:
        """Return the variables a client process needs before it imports huggingface_hub."""
        values = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        return values | ({"HF_TOKEN": token} if token else {})

    def fail(self, method: str, path: str, *statuses: Fault) -> None:
        """Answer the next requests that match with these statuses, one each.

        A status is a number, (number, headers), "drop" (the connection closes without an answer), "lose" (the
        request is carried out and the connection closes), or a function called before the request goes on.
        """
        self.faults.append((method, path, list(statuses)))

    def reset(self) -> None:
        """Forget faults and recorded requests; repositories stay."""
        self.faults.clear()
        self.requests.clear()
        self.unknown.clear()

    def repo(self, kind: str, repo_id: str) -> Repo:
        return self.repos[kind, repo_id]

    def create(self, kind: str, repo_id: str, *, private: bool = False) -> Repo:
        return self.repos.setdefault((kind, repo_id), Repo(kind, repo_id, private))

    def next_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for wanted, pattern, statuses in self.faults:
                if statuses and wanted == method and re.search(pattern, path):
                    return statuses.pop(0)
        return None


class _Answer(Exception):
    """Ends the handling of a request with an error."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        self.status, self.code, self.message = status, code, message or code


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    ROUTES = (
        ("GET", r"/api/agent-harnesses", "harnesses"),
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create_repo"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("GET", rf"{API}(/revision/(?P<revision>[^/]+))?", "repo_info"),
        ("GET", rf"{API}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", "tree"),
        ("POST", rf"{API}/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", rf"{API}/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", rf"{FILES}\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/storage/(?P<oid>[0-9a-f]{64})", "lfs_put"),
        ("POST", r"/storage/(?P<oid>[0-9a-f]{64})/verify", "lfs_verify"),
        ("GET", rf"{FILES}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
        ("HEAD", rf"{FILES}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def do_GET(self) -> None:
        self.handle_request()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass

    # ------------------------------------------------------------------------------------------- plumbing

    def handle_request(self) -> None:
        url = urlsplit(self.path)
        self.route, self.query = unquote(url.path), parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.lost = False
        with self.hub.lock:
            self.hub.requests.append(f"{self.command} {self.route}")
        fault = self.hub.next_fault(self.command, self.route)
        if callable(fault):
            fault()
        elif fault == "drop":
            return self.hang_up()
        elif fault == "lose":
            self.lost = True
        elif fault is not None:
            status, headers = fault if isinstance(fault, tuple) else (fault, {})
            return self.send(status, {"error": f"injected {status}"}, headers)
        try:
            with self.hub.lock:
                self.dispatch()
        except _Answer as answer:
            headers = {"X-Error-Code": answer.code, "X-Error-Message": answer.message}
            self.send(answer.status, {"error": answer.message}, headers)

    def dispatch(self) -> None:
        for method, pattern, name in self.ROUTES:
            match = re.fullmatch(pattern, self.route) if method == self.command else None
            if match:
                return getattr(self, name)(**match.groupdict())
        self.hub.unknown.append(f"{self.command} {self.path}")
        raise _Answer(404, "UnknownRoute", f"the test server does not know {self.command} {self.route}")

    def send(self, status: int, content: Any = None, headers: dict[str, str] | None = None) -> None:
        if self.lost:
            return self.hang_up()
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        if not isinstance(content, bytes):
            self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    # ------------------------------------------------------------------------------------- who may do what

    @property
    def user(self) -> str | None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if not token:
            return None
        if scheme != "Bearer" or token not in self.hub.tokens:
            raise _Answer(401, "", "Invalid credentials in Authorization header")
        return self.hub.tokens[token]

    def may_write(self, namespace: str) -> None:
        if self.user is None:
            raise _Answer(401, "", "Invalid username or password.")
        if namespace not in (self.user, "org"):
            raise _Answer(403, "", f"You don't have the rights to write to {namespace}")

    def find(self, kind: str, namespace: str, name: str) -> Repo:
        repo, user = self.hub.repos.get((kind, f"{namespace}/{name}")), self.user
        if repo is None or (repo.private and user not in (namespace, None) and namespace != "org"):
            raise _Answer(404 if user else 401, "RepoNotFound", "Repository not found")
        if repo.private and user is None:
            raise _Answer(401, "RepoNotFound", "Repository not found")
        return repo

    def find_files(self, repo: Repo, revision: str) -> tuple[str, dict[str, StoredFile]]:
        found = repo.at(unquote(revision))
        if found is None:
            raise _Answer(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    # ---------------------------------------------------------------------------------------------- routes

    def harnesses(self) -> None:
        self.send(200, {"standardEnvVars": [], "harnesses": {}})

    def whoami(self) -> None:
        if self.user is None:
            raise _Answer(401, "", "Invalid username or password.")
        self.send(200, {"type": "user", "name": self.user, "orgs": [], "auth": {}})

    def create_repo(self) -> None:
        asked = json.loads(self.body)
        namespace = asked.get("organization") or self.user
        self.may_write(namespace)
        kind, repo_id = asked.get("type", "model"), f"{namespace}/{asked['name']}"
        url = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
        if (kind, repo_id) in self.hub.repos:
            return self.send(409, {"error": "You already created this repo", "url": url})
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.create(kind, repo_id, private=bool(private))
        self.send(200, {"url": url, "name": repo_id})

    def validate_yaml(self) -> None:
        content = json.loads(self.body)["content"]
        if not content.startswith("---\n"):
            return self.send(200, {"errors": [], "warnings": [{"message": "empty or missing yaml metadata"}]})
        self.send(200, {"errors": [], "warnings": []})

    def repo_info(self, kind: str, namespace: str, name: str, revision: str | None) -> None:
        repo = self.find(kind, namespace, name)
        sha, files = self.find_files(repo, revision or "main")
        answer = {"_id": "0", "id": repo.id, "author": namespace, "sha": sha, "private": repo.private}
        answer |= {"siblings": [{"rfilename": path} for path in sorted(files)], "tags": [], "downloads": 0}
        self.send(200, answer | {"disabled": False, "gated": False, "likes": 0})

    def tree(self, kind: str, namespace: str, name: str, revision: str, folder: str | None) -> None:
        _, files = self.find_files(self.find(kind, namespace, name), revision)
        prefix = f"{folder}/" if folder else ""
        below = {path: stored for path, stored in files.items() if path.startswith(prefix)}
        if folder and not below:
            raise _Answer(404, "EntryNotFound", f"{folder} does not exist")
        recursive = self.query.get("recursive", ["false"])[0].lower() == "true"
        self.send(200, list(self.entries(below, prefix, recursive)))

    def entries(self, files: dict[str, StoredFile], prefix: str, recursive: bool) -> Iterator[dict[str, Any]]:
        folders = set()
        for path, stored in sorted(files.items()):
            first, slash, _ = path[len(prefix) :].partition("/")
            if slash and prefix + first not in folders:
                folders.add(prefix + first)
                yield {"type": "directory", "oid": git_oid(first.encode()), "size": 0, "path": prefix + first}
            if slash and not recursive:
                continue
            lfs = {"oid": stored.sha256, "size": len(stored.data), "pointerSize": 130} if stored.lfs else None
            entry = {"type": "file", "oid": stored.oid, "size": len(stored.data), "path": path}
            yield entry | ({"lfs": lfs} if lfs else {})

    def preupload(self, kind: str, namespace: str, name: str, revision: str) -> None:
        self.may_write(namespace)
        _, files = self.find_files(self.find(kind, namespace, name), revision)
        answer = []
        for asked in json.loads(self.body)["files"]:
            mode = "lfs" if asked["path"].endswith(LFS_SUFFIXES) else "regular"
            old = files.get(asked["path"])
            oid = None if old is None else old.sha256 if old.lfs else old.oid
            answer.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.send(200, {"files": answer})

    def lfs_batch(self, plural: str | None, namespace: str, name: str) -> None:
        self.may_write(namespace)
        self.find("dataset" if plural else "model", namespace, name)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            href = f"{self.hub.url}/storage/{asked['oid']}"
            actions = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            known = asked["oid"] in self.hub.blobs
            objects.append({"oid": asked["oid"], "size": asked["size"]} | ({} if known else {"actions": actions}))
        self.send(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Answer(400, "", "the content does not match its sha256")
        if self.headers.get("Authorization"):
            raise _Answer(400, "", "storage takes no token")
        self.hub.blobs[oid] = self.body
        self.send(200, b"")

    def lfs_verify(self, oid: str) -> None:
        if oid not in self.hub.blobs:
            raise _Answer(404, "", "no such object")
        self.send(200, {})

    def commit(self, kind: str, namespace: str, name: str, revision: str) -> None:
        self.may_write(namespace)
        repo = self.find(kind, namespace, name)
        header, *operations = [json.loads(line) for line in self.body.decode().splitlines() if line]
        if header["value"].get("parentCommit") not in (None, repo.head):
            raise _Answer(412, "", "A commit has happened since. Please refresh and try again.")
        files = dict(repo.files)
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = StoredFile(base64.b64decode(value["content"]), lfs=False)
            elif operation["key"] == "lfsFile":
                files[value["path"]] = StoredFile(self.hub.blobs[value["oid"]], lfs=True)
            elif operation["key"] == "deletedFile":
                files.pop(value["path"])
            else:
                raise _Answer(400, "", f"unknown operation {operation['key']}")
        sha = repo.commit(header["value"]["summary"], files)
        url = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{repo.id}/commit/{sha}"
        self.send(200, {"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def resolve(self, plural: str | None, namespace: str, name: str, revision: str, path: str) -> None:
        repo = self.find("dataset" if plural else "model", namespace, name)
        sha, files = self.find_files(repo, revision)
        if path not in files:
            raise _Answer(404, "EntryNotFound", f"{path} does not exist")
        stored = files[path]
        etag = stored.sha256 if stored.lfs else stored.oid
        headers = {"X-Repo-Commit": sha, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if stored.lfs:
            headers |= {"X-Linked-Etag": f'"{stored.sha256}"', "X-Linked-Size": str(len(stored.data))}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part is None:
            return self.send(200, stored.data, headers)
        first, last = int(part[1]), min(int(part[2] or len(stored.data) - 1), len(stored.data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(stored.data)}"
        self.send(206, stored.data[first : last + 1], headers)
