"""A store for one test: keeps every request as it came in, and verifies payload hashes as S3 does."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qs, unquote, urlsplit

UPLOAD_ID = "upload-1"


@dataclass(frozen=True)
class Request:
    """One request: header names in lower case, the body as it came over the wire."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


@dataclass
class RecordingS3:
    """What the store was asked for, in order, and the ETags of the parts and objects that it took."""

    endpoint_url: str = ""
    requests: list[Request] = field(default_factory=list)
    taken: dict[str, bytes] = field(default_factory=dict)
    refusal: tuple[int, str] | None = None
    """Status and code to answer every request with."""
    asks_for_md5: bool = False
    """Whether it takes content with a Content-MD5 alone, as a bucket with Object Lock does."""


@contextmanager
def recording_s3(asks_for_md5: bool = False) -> Iterator[RecordingS3]:
    """A store that listens for the length of a `with` block."""
    store, lock = RecordingS3(asks_for_md5=asks_for_md5), Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            address = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = parse_qs(address.query, keep_blank_values=True)
            request = Request(self.command, unquote(address.path), query, headers, body)
            with lock:
                store.requests.append(request)
            status, answer = _answer(store, request)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            if request.method == "PUT" and status == 200:
                self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')  # noqa: S324 (as S3 does)
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    store.endpoint_url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(store: RecordingS3, request: Request) -> tuple[int, bytes]:
    """Status and body of the answer to one request."""
    if store.refusal:
        return store.refusal[0], _xml("Error", Code=store.refusal[1], Message="Not now.")
    if store.asks_for_md5 and request.method == "PUT" and not _has_md5(request):
        return 400, _xml(
            "Error",
            Code="InvalidRequest",
            Message="Content-MD5 OR x-amz-checksum- HTTP header is required for Put Part requests with Object Lock",
        )
    announced = request.headers.get("x-amz-content-sha256", "")
    if request.method in ("PUT", "POST") and announced != hashlib.sha256(request.body).hexdigest():
        return 400, _xml("Error", Code="XAmzContentSHA256Mismatch", Message="The provided hash does not match.")
    if request.method == "PUT":
        store.taken[f"{request.path} {request.query.get('partNumber', [''])[0]}".rstrip()] = request.body
        return 200, b""
    if request.method == "POST" and "uploads" in request.query:
        return 200, _xml("InitiateMultipartUploadResult", UploadId=UPLOAD_ID)
    if request.method == "POST":
        return 200, _xml("CompleteMultipartUploadResult", ETag='"joined"')
    if request.method == "DELETE":
        return 204, b""
    return 404, _xml("Error", Code="NoSuchKey", Message="It is not here.")


def _has_md5(request: Request) -> bool:
    md5 = hashlib.md5(request.body).digest()  # noqa: S324 (as S3 does)
    return request.headers.get("content-md5", "") == base64.b64encode(md5).decode()


def _xml(root: str, **values: str) -> bytes:
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in values.items())
    return f'<?xml version="1.0" encoding="UTF-8"?><{root}>{inner}</{root}>'.encode()
