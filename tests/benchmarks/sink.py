"""An S3 server that costs little: it takes multipart uploads, keeps the first and the newest parts, forgets the rest.

Run as `python -m tests.benchmarks.sink`; prints its port. For benchmarks alone: it checks no signature. It says of itself,
as AWS and R2 do, that it compares parts with their signed SHA-256, whose cost would be the store's.
"""

from __future__ import annotations

import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

KEPT = 6  # parts: the first, and the last that may be read back
_TRIED = "/.write-check"  # what is uploaded to try what the store compares
_XML = '<?xml version="1.0" encoding="UTF-8"?>'


class _Objects:
    """Sizes of all parts of the open upload, content of a few, and small objects."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.small: dict[str, bytes] = {}
        self.sizes: dict[int, int] = {}
        self.content: dict[int, bytearray] = {}
        self.complete = ""

    def begin(self) -> None:
        with self.lock:
            self.sizes, self.content, self.complete = {}, {}, ""

    def keep(self, number: int, content: bytearray) -> None:
        with self.lock:
            self.sizes[number] = len(content)
            self.content[number] = content
            for old in sorted(self.content)[1 : -(KEPT - 1)]:
                del self.content[old]

    def range(self, start: int, end: int) -> bytes:
        size = self.sizes[1]
        return bytes(self.content[start // size + 1][: end - start + 1])


OBJECTS = _Objects()


class Handler(BaseHTTPRequestHandler):
    """The requests that a backup makes."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        key, query = self._address()
        self._body()
        if "uploads" in query:
            if not key.endswith(_TRIED):
                OBJECTS.begin()
            self._answer(f"{_XML}<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        else:
            OBJECTS.complete = key
            self._answer(f"{_XML}<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>")

    def do_PUT(self) -> None:
        key, query = self._address()
        body = self._body()
        if key.endswith(_TRIED):
            if "Content-MD5" in self.headers:  # whether the last part that S3 allows is taken
                self._answer("", headers={"ETag": '"e"'})
            else:
                self._answer(f"{_XML}<Error><Code>XAmzContentSHA256Mismatch</Code></Error>", status=400)
            return
        if "partNumber" in query:
            OBJECTS.keep(int(query["partNumber"][0]), body)
        else:
            OBJECTS.small[key] = bytes(body)
        self._answer("", headers={"ETag": '"e"'})

    def do_GET(self) -> None:
        key, query = self._address()
        wanted = self.headers.get("Range")
        if "uploadId" in query:
            parts = "".join(
                f"<Part><PartNumber>{n}</PartNumber><Size>{s}</Size></Part>" for n, s in sorted(OBJECTS.sizes.items())
            )
            self._answer(f"{_XML}<ListPartsResult><IsTruncated>false</IsTruncated>{parts}</ListPartsResult>")
        elif "uploads" in query:
            self._answer(
                f"{_XML}<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>"
            )
        elif "versioning" in query:
            self._answer(f"{_XML}<VersioningConfiguration/>")
        elif query.keys() & {"lifecycle", "object-lock"}:
            self._answer(f"{_XML}<Error><Code>NoSuchConfiguration</Code></Error>", status=404)
        elif wanted:
            start, end = wanted.removeprefix("bytes=").split("-")
            self._answer(OBJECTS.range(int(start), int(end)), status=206)
        else:
            self._answer(OBJECTS.small[key])

    def do_HEAD(self) -> None:
        key, _ = self._address()
        size = sum(OBJECTS.sizes.values()) if key == OBJECTS.complete else None
        self._answer(b"", status=200 if size else 404, length=size or 0)

    def do_DELETE(self) -> None:
        self._answer("", status=204)

    def log_message(self, *_: object) -> None:
        """Keeps quiet."""

    def _address(self) -> tuple[str, dict[str, list[str]]]:
        split = urlsplit(self.path)
        return split.path, parse_qs(split.query, keep_blank_values=True)

    def _body(self) -> bytearray:
        content = bytearray(int(self.headers.get("Content-Length", 0)))
        view, at = memoryview(content), 0
        while at < len(content):
            at += self.rfile.readinto(view[at:]) or 0  # type: ignore[attr-defined]
        return content

    def _answer(
        self, body: str | bytes, status: int = 200, headers: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        content = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)


class Server(socketserver.ThreadingTCPServer):
    """One thread a connection."""

    daemon_threads = True
    allow_reuse_address = True


def main() -> None:
    """Serves until its standard input is closed."""
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
