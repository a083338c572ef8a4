"""Who may ask: the API key, and what browsers say about the page that a request comes from."""

from base64 import b64decode
from hmac import compare_digest
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mllm.serving.errors import ApiError
from mllm.serving.options import ServerOptions, is_address, is_loopback


class Access:
    """Middleware that refuses requests of other sites' pages and those without the key.

    A page elsewhere can point a name of its own at this machine; that name then stands in Host.
    """

    def __init__(
        self, app: ASGIApp, *, options: ServerOptions, open_paths: tuple[str, ...]
    ) -> None:
        """`open_paths`, and what lies below them, need no key."""
        self.app = app
        self.options = options
        self.open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            headers = Headers(scope=scope)
            self.check_host(headers.get("host", ""))
            self.check_origin(headers)
            if not self._is_open(scope["path"]):
                self.check_key(headers.get("authorization", ""))
        await self.app(scope, receive, send)

    def check_host(self, host: str) -> None:
        name = host_name(host)
        if is_loopback(name) or name in (self.options.host, *self.options.allow_hosts):
            return
        # No page can point an address elsewhere, as it can its own name.
        if not self.options.is_private and is_address(name):
            return
        raise ApiError(
            403, f"this server does not answer to the host {name[:80]!r}; --allow-host adds a name"
        )

    def check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None or origin in self.options.allow_origins:
            return
        if urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            raise ApiError(
                403, f"pages of {origin[:80]!r} may not ask here; --allow-origin adds a site"
            )

    def check_key(self, authorization: str) -> None:
        key = self.options.api_key
        if key is None:
            return
        if not compare_digest(given_key(authorization).encode(), key.encode()):
            raise ApiError(
                401,
                "a valid API key is needed; send it as Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"www-authenticate": 'Bearer, Basic realm="the API key is the password"'},
            )

    def _is_open(self, path: str) -> bool:
        return any(path == each or path.startswith(f"{each}/") for each in self.open_paths)


def given_key(authorization: str) -> str:
    """The key in an Authorization header: a bearer's, or the password that a browser asks for."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scheme.lower() == "basic":
        try:
            return b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:  # no base64, or no text in it
            return ""
    return ""


def host_name(host: str) -> str:
    """The name or address in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
