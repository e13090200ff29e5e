"""The web application over stored answers: a list, a report, two answers side by side. It reads
only; there is no script on its pages.
"""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from unseen.characters import clean
from unseen.errors import CorruptFile, InvalidConfig, MissingExtra, UnknownName, UnseenError
from unseen.report.html import html
from unseen.runs.answers import Answers
from unseen.serve.guard import (
    LOOPBACK,
    Guard,
    page_file,
    report_bug,
    security_headers,
    sentence_of,
)
from unseen.serve.library import KINDS, changes, listing

try:
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
except ImportError as error:
    raise MissingExtra(
        "The page in the browser needs Starlette and uvicorn.",
        why=str(error),
        fix='pip install "unseen[ui]"',
    ) from error

LIST_HEADERS = security_headers("style-src 'self'; img-src 'self'; form-action 'self'")
REPORT_HEADERS = security_headers("style-src 'unsafe-inline'; img-src data:; form-action 'none'")
"""A report carries its own style and images, and no script."""
FILES = {"/answers.css": "text/css", "/favicon.svg": "image/svg+xml"}
BACK = '<p class="kicker"><a href="/">← All stored answers</a></p>'
PAGE = '<div class="page">'
LONGEST = 200
"""Letters of a filter."""


def answers_app(home: Path, hosts: tuple[str, ...] = LOOPBACK) -> Guard:
    """The application over the answers of a home."""

    def index(request: Request) -> Response:
        words = request.query_params.get("words", "")[:LONGEST]
        question = request.query_params.get("kind", "")
        question = question if question in KINDS else ""
        found = listing(home, words, question)
        text = _list_page().render(
            found=found, words=words, kind=question, kinds=KINDS, home=str(home)
        )
        return Response(text, headers=LIST_HEADERS, media_type="text/html")

    def report(request: Request) -> Response:
        return _page(Answers(home).report(request.path_params["key"]))

    def compare(request: Request) -> Response:
        keys = list(dict.fromkeys(request.query_params.getlist("one")))
        if len(keys) != 2:
            count = len(keys) or "None"
            raise InvalidConfig(
                f"{count} ticked.", why="two answers are compared.", fix="go back and tick two."
            )
        return _page(html(changes(home, keys)))

    async def file(request: Request) -> Response:
        name = request.url.path.removeprefix("/")
        kind = FILES[request.url.path]
        return Response(page_file(name), headers=LIST_HEADERS, media_type=kind)

    routes = [
        Route("/", _in_thread(index)),
        Route("/answers/{key}", _in_thread(report)),
        Route("/compare", _in_thread(compare)),
        *(Route(path, file) for path in FILES),
    ]
    handlers: dict[Any, Any] = {
        UnseenError: _explain,
        HTTPException: _explain_address,
        Exception: report_bug,
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), hosts)


def _in_thread(work: Any) -> Any:
    async def respond(request: Request) -> Response:
        return await run_in_threadpool(work, request)

    return respond


def _page(text: str, status: int = 200) -> Response:
    """A report with the way back to the list."""
    linked = text.replace(PAGE, f"{PAGE}\n{BACK}", 1)
    return Response(linked, status, headers=REPORT_HEADERS, media_type="text/html")


async def _explain(request: Request, error: Exception) -> Response:
    """What, why and fix as a page."""
    assert isinstance(error, UnseenError)
    status = (
        404 if isinstance(error, UnknownName) else 500 if isinstance(error, CorruptFile) else 422
    )
    return _refusal(error, status)


async def _explain_address(request: Request, error: Exception) -> Response:
    """A wrong address, as a page."""
    assert isinstance(error, HTTPException)
    return _refusal(UnseenError(sentence_of(error)), error.status_code)


def _refusal(error: UnseenError, status: int) -> Response:
    text = _template("refusal.html.jinja").render(error=error)
    return Response(text, status, headers=LIST_HEADERS, media_type="text/html")


@cache
def _template(name: str) -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["clean"] = clean
    return environment.from_string(page_file(name).decode("utf-8"))


def _list_page() -> Template:
    return _template("answers.html.jinja")
