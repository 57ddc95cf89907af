"""An HTTP proxy that loses things, in front of a real server: for tests of delivery."""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class FaultyProxy:
    """Passes requests on; may be away, and answers some with 500, before or after they count.

    Args:
        target: the base URL of the real server.
        error_rate: the share of requests that are answered with 500.
        seed: of what is chosen by chance.
    """

    def __init__(self, target: str, error_rate: float = 0.0, seed: int = 0) -> None:
        self.target = urlsplit(target)
        self.error_rate = error_rate
        self.errors = 0  # requests answered with 500
        self.refused = 0  # connections while it was away
        self.lose_next = ""  # the answer to the next request whose path ends so
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._away = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Drop every connection without an answer."""
        self._away = True
        try:
            yield
        finally:
            self._away = False

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault(self, path: str) -> str:
        """What happens to a request: nothing, or 500 before or after the server has it."""
        with self._lock:
            if self.lose_next and path.endswith(self.lose_next):
                self.lose_next = ""
                self.errors += 1
                return "after"
            if self._chance.random() >= self.error_rate:
                return ""
            self.errors += 1
            return self._chance.choice(("before", "after"))

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                if proxy._away:
                    proxy.refused += 1
                    self.close_connection = True
                    return
                super().handle_one_request()

            def _pass_on(self) -> None:
                if proxy._away:
                    proxy.refused += 1
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fault = proxy.fault(self.path)
                if fault == "before":
                    return self._answer(500, {}, b"out of order")
                headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
                upstream = http.client.HTTPConnection(proxy.target.netloc, timeout=60)
                upstream.request(self.command, self.path, body, headers)
                answer = upstream.getresponse()
                content = answer.read()
                upstream.close()
                if fault == "after":
                    return self._answer(500, {}, b"the answer was lost")
                return self._answer(answer.status, dict(answer.getheaders()), content)

            def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        return Handler
