"""A server for one page on this machine alone: patient data does not leave it.

What stands between the page and others: the loopback address; the ``Host`` header, which a web site that turns its
own name into 127.0.0.1 (DNS rebinding) cannot forge; a random token, which other users of the machine do not know;
a fixed table of answers, so that no path of a request reaches the disk.
"""

import errno
import hmac
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from abdoseg.errors import ConfigError
from abdoseg.viewer.resources import Resource

ADDRESS = "127.0.0.1"

# NiiVue unpacks some formats by WebAssembly that it carries along, and its fonts are data.
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class ViewerServer(ThreadingHTTPServer):
    """Serves a table of resources on 127.0.0.1 to who has the token.

    Parameters
    ----------
    resources
        Path -> answer.
    port
        Port to listen on; 0: any free one.

    Raises
    ------
    ConfigError
        If the port cannot be had.
    """

    daemon_threads = True
    # A second viewer on the same port must be refused, also where the system would share it.
    allow_reuse_port = False

    def __init__(self, resources: Mapping[str, Resource], port: int = 0) -> None:
        self.resources = resources
        self.token = secrets.token_urlsafe(32)
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
            raise ConfigError(f"--port {port}: {reason}; choose another, or leave --port out for a free one") from error

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """The page's address, with the token."""
        return f"http://{ADDRESS}:{self.port}/?token={self.token}"

    @property
    def cookie_name(self) -> str:
        """Browsers share cookies between ports, so that the name tells viewers apart."""
        return f"abdoseg-{self.port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that closed a connection; anything else is a bug and is shown."""
        import sys

        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: ViewerServer
    timeout = 60

    def do_GET(self) -> None:
        """Answer with a resource, if host and token are right."""
        resource, error = self._decide()
        if resource is None:
            self.send_error(error)
            return
        self._answer(HTTPStatus.OK, resource)

    do_HEAD = do_GET  # noqa: N815

    def _decide(self) -> tuple[Resource | None, HTTPStatus]:
        if not self._host_is_ours():
            return None, HTTPStatus.FORBIDDEN
        try:
            asked = urlsplit(self.path)
        except ValueError:
            return None, HTTPStatus.BAD_REQUEST
        if not self._has_token(asked.query):
            return None, HTTPStatus.FORBIDDEN
        # Before the table, so that who lacks the token does not learn what is in it.
        return self.server.resources.get(asked.path), HTTPStatus.NOT_FOUND

    def _host_is_ours(self) -> bool:
        hosts = self.headers.get_all("Host") or []
        return len(hosts) == 1 and hosts[0].lower() in {f"{name}:{self.server.port}" for name in (ADDRESS, "localhost")}

    def _has_token(self, query: str) -> bool:
        given = parse_qs(query).get("token", [])
        for header in self.headers.get_all("Cookie") or []:
            try:
                morsel = SimpleCookie(header).get(self.server.cookie_name)
            except CookieError:
                continue
            if morsel is not None:
                given.append(morsel.value)
        return any(self._is_token(value) for value in given)

    def _is_token(self, value: str) -> bool:
        # compare_digest takes as long for a nearly right token as for any other.
        return hmac.compare_digest(value.encode(errors="replace"), self.server.token.encode())

    def _answer(self, status: HTTPStatus, resource: Resource) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", resource.type)
        self.send_header("Content-Length", str(len(resource.content)))
        if status == HTTPStatus.OK:
            cookie = f"{self.server.cookie_name}={self.server.token}; Path=/; HttpOnly; SameSite=Strict"
            self.send_header("Set-Cookie", cookie)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(resource.content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer with the status' own words: nothing of the request comes back."""
        # Python answers 501 to methods it finds no function for; here they are known and not allowed.
        status = HTTPStatus(code)
        status = HTTPStatus.METHOD_NOT_ALLOWED if status == HTTPStatus.NOT_IMPLEMENTED else status
        hint = "; open the address that abdoseg view printed" if status == HTTPStatus.FORBIDDEN else ""
        self._answer(status, Resource(f"{status.value} {status.phrase}{hint}\n".encode(), "text/plain; charset=utf-8"))

    def version_string(self) -> str:
        """Name no versions."""
        return "abdoseg"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep no log: the requests are the page's own."""
