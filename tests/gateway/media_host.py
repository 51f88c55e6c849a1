"""Pictures for tests, and a real HTTP server that hands them out, well or badly."""

from __future__ import annotations

import base64
import contextlib
import io
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

Route = Callable[[BaseHTTPRequestHandler], None]


def picture(seed: int, width: int = 48, height: int = 32, mode: str = "RGB") -> Image.Image:
    """A picture of coloured stripes that no other seed has."""
    image = Image.new("RGB", (width, height))
    colours = [
        ((seed * 97 + i * 53) % 256, (seed * 31 + i * 101) % 256, i * 41 % 256) for i in range(9)
    ]
    for x in range(width):
        for y in range(height):
            image.putpixel((x, y), colours[(x * (seed % 3 + 1) // 8 + y // 8) % 9])
    return image.convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The file of a picture."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def data_url(content: bytes, kind: str = "image/png") -> str:
    """A ``data:`` URL."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def sends(content: bytes, kind: str = "image/png", status: int = 200, **headers: str) -> Route:
    """A route that answers like this."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        with contextlib.suppress(ConnectionError):
            handler.wfile.write(content)

    return answer


class MediaHost:
    """A server on a free port of this machine, with TLS where a context for it is given.

    Attributes:
        routes: path to what answers it.
        seen: path and ``Host`` of every request.
        released: set at the end; a route that waits for it never holds up the test.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.routes: dict[str, Route] = {}
        self.seen: list[tuple[str, str]] = []
        self.released = threading.Event()
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.seen.append((self.path, self.headers["Host"]))
                host.routes.get(self.path, sends(b"", "text/plain", 404))(self)

            def log_message(self, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def media_host(tls: ssl.SSLContext | None = None) -> Iterator[MediaHost]:
    """A server for the length of a block."""
    host = MediaHost(tls)
    try:
        yield host
    finally:
        host.close()
