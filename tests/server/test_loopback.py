import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.error import HTTPError

import pytest

from cosmos_triton.server import loopback


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/well" else 503)
        self.end_headers()
        self.wfile.write(b"ours")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_proxy_is_not_asked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    assert loopback.read(f"{url}/well", timeout_s=5) == b"ours"
    with pytest.raises(HTTPError):
        loopback.read(f"{url}/ill", timeout_s=5)


def test_programs_that_read_no_proxy_are_told_of_loopback_too() -> None:
    told = loopback.environment({"no_proxy": "example.org", "PATH": "/bin"})
    assert told["no_proxy"].split(",") == ["example.org", "localhost", "127.0.0.1", "::1"]
    assert told["NO_PROXY"].startswith("localhost,")
    assert told["PATH"] == "/bin"
