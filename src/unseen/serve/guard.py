"""What every local page needs: foreign hosts and origins, large bodies and everything that is not
ours are refused before anything reads them, and nothing of a page comes from anywhere else.

Only `serve/` and the commands know Starlette (extra `ui`).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import resources
from typing import Any

from unseen.errors import InvalidData, MissingExtra, UnknownName, UnseenError

try:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
except ImportError as error:
    raise MissingExtra(
        "The page in the browser needs Starlette and uvicorn.",
        why=str(error),
        fix='pip install "unseen[ui]"',
    ) from error

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
LARGEST_BODY = 1 << 20
Scope = Any


def security_headers(policy: str) -> dict[str, str]:
    """Headers of every answer: the content security policy allows what it names, and else
    nothing.
    """
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": f"default-src 'none'; {policy}; base-uri 'none'; "
        "frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


NOTHING = security_headers("form-action 'none'")
"""Of an answer that is no page."""


class Guard:
    """Refuses foreign hosts and origins and bodies that are too large, before anything reads them.

    A page of another site can send requests to a loopback address, and by rebinding its own name
    read the answers: the Host header tells.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], hosts: Sequence[str]) -> None:
        self.app, self.hosts = app, {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1")
                   for key, value in scope["headers"]}  # fmt: skip
        if refusal := self._refusal(headers):
            await refusal(scope, receive, send)
            return
        body, too_large = b"", False
        while True:  # bodies are small, so that they are read whole
            message = await receive()
            body += message.get("body", b"")
            too_large = len(body) > LARGEST_BODY
            if too_large or not message.get("more_body"):
                break
        if too_large:
            await error_response(413, "The body is too large: at most 1 MB.")(scope, receive, send)
            return
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Any:
            return messages.pop() if messages else await receive()

        await self.app(scope, replay, send)

    def _refusal(self, headers: Mapping[str, str]) -> JSONResponse | None:
        host = headers.get("host", "")
        if _host_name(host) not in self.hosts:
            return error_response(
                403, "This host is not served: open the address that the command printed."
            )
        origin = headers.get("origin")
        if origin is not None and origin.split("://")[-1] != host:
            return error_response(403, "Another site may not use this page.")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            return error_response(413, "The body is too large: at most 1 MB.")
        return None


def _host_name(host: str) -> str:
    """Without the port."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()


STANDARD = {
    "Not Found": "There is nothing at this address.",
    "Method Not Allowed": "This address is not used so.",
}


def error_response(status: int, sentence: str) -> JSONResponse:
    """One sentence that says why not."""
    return JSONResponse({"error": sentence}, status, NOTHING)


async def refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, UnseenError)
    parts = (error.what, error.why and error.why[0].upper() + error.why[1:])
    words = " ".join(part for part in parts if part)
    if isinstance(error, UnknownName | InvalidData) and error.fix:
        words = f"{error.what} ({error.fix.rstrip('.')})"
    status = getattr(error, "status", 422)
    return error_response(status, " ".join(words.split()))


async def refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, sentence_of(error))


def sentence_of(error: HTTPException) -> str:
    """What the framework says in two words, in a sentence; else what the error says."""
    return STANDARD.get(error.detail, error.detail)


async def report_bug(request: Request, error: Exception) -> Response:
    return error_response(
        500, f"The server failed ({type(error).__name__}); its terminal says where."
    )


def page_file(name: str) -> bytes:
    """A file of the pages that come with the package."""
    return resources.files("unseen.serve").joinpath("page", name).read_bytes()
