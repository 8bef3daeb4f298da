"""A TCP proxy before a PostgreSQL server: it cuts connections, refuses, stalls or slows them, and changes the server."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

#: Bytes that pass at once on a slow line, every fiftieth of a second: 50 kB in each.
_SLOW = 1000


class FaultyPostgres:
    """A running proxy for the length of a `with` block."""

    def __init__(self, port: int) -> None:
        self.target = port
        """The port of the server to which new connections are passed on."""
        self.slow = False
        """Whether the server's answers come with 50 kB/s."""
        self.refused = 0
        """How many of the next connections are closed at once."""
        self._open = threading.Event()
        self._open.set()
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    @property
    def port(self) -> int:
        """Where the proxy listens."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> FaultyPostgres:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.set()
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Ends every connection, as a network that breaks."""
        with self._lock:
            ended, self._sockets = self._sockets, []
        for end in ended:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def stall(self, seconds: float) -> None:
        """Nothing passes for a while."""
        self._open.clear()
        threading.Timer(seconds, self._open.set).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with self._lock:
            refused, self.refused = self.refused > 0, max(0, self.refused - 1)
        try:
            server = None if refused else socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            server = None
        if server is None:
            client.close()
            return
        with self._lock:
            self._sockets += [client, server]
        asking = threading.Thread(target=self._copy, args=(client, server, False), daemon=True)
        asking.start()
        self._copy(server, client, True)
        asking.join()
        with self._lock:
            self._sockets = [end for end in self._sockets if end not in (client, server)]
        client.close()
        server.close()

    def _copy(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self._open.wait()
                while is_answer and self.slow and data:
                    target.sendall(data[:_SLOW])
                    data = data[_SLOW:]
                    time.sleep(0.02)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
