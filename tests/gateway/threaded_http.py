"""A server in threads on a port of this machine, for stand-ins of other services."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class ThreadedHttp:
    """Serves from entering to leaving.

    Attributes:
        handler: its requests' handler; finds the server's own state as ``cloud``.
    """

    handler: type[BaseHTTPRequestHandler]

    def __enter__(self) -> Self:
        handler: Any = type("Handler", (self.handler,), {"cloud": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"
