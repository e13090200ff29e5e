"""The web application around sessions of the compass: its routes."""

import functools
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import isfinite
from typing import Any

from unseen.errors import InvalidData, MissingExtra, UnseenError
from unseen.models.generator import ImageGenerator
from unseen.serve.guard import (
    LOOPBACK,
    Guard,
    page_file,
    refuse,
    refuse_http,
    report_bug,
    security_headers,
)
from unseen.serve.images import png_grid
from unseen.serve.marks import STRONGEST
from unseen.serve.session import ANCHORS, WALK, Session
from unseen.serve.session_files import card, open_session, session_file, tensors
from unseen.serve.studio import MEASURED, Studio

try:
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise MissingExtra(
        "The page in the browser needs Starlette and uvicorn.",
        why=str(error),
        fix='pip install "unseen[ui]"',
    ) from error

MOST_SESSIONS = 64
PAGES = {
    "/": ("compass.html", "text/html"),
    "/compass.css": ("compass.css", "text/css"),
    "/compass.js": ("compass.js", "text/javascript"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}
HEADERS = security_headers(
    "script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'none'"
)
Body = Mapping[str, Any]


class Sessions:
    """The sessions of all tabs by an id that cannot be guessed; the oldest give way."""

    def __init__(self, studio: Studio, start: object = None) -> None:
        self.studio, self.start = studio, start
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, session: Session) -> str:
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._sessions[name] = session
            while len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)
        return name

    def find(self, name: str) -> Session:
        with self._lock:
            if name not in self._sessions:
                raise HTTPException(404, "There is no such session: reload the page for a new one.")
            self._sessions.move_to_end(name)
            return self._sessions[name]


def compass_app(
    generator: ImageGenerator,
    *,
    hosts: Sequence[str] = LOOPBACK,
    start: object = None,
    measured: int = MEASURED,
) -> "Guard":
    """The application for one generator; `start` is the content of a session file that every tab
    begins with, `measured` the number of images behind every measure.
    """
    sessions = Sessions(Studio(generator, measured), start)
    if start is not None:
        open_session(sessions.studio, start)  # refused now rather than in the browser
    routes = [
        *(Route(path, functools.partial(_page, *page)) for path, page in PAGES.items()),
        Route("/favicon.ico", functools.partial(_page, *PAGES["/favicon.svg"])),
        *_api(sessions),
    ]
    handlers = {UnseenError: refuse, HTTPException: refuse_http, Exception: report_bug}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), hosts)


async def _page(name: str, kind: str, request: Request) -> Response:
    return Response(page_file(name), headers=HEADERS, media_type=kind)


Answer = Callable[[Session, Request, Body], Any]


def _api(sessions: Sessions) -> list[Route]:
    """Every route of the interface; the simulated person of the tests uses the same."""
    generator = sessions.studio.generator

    def model(request: Request, body: Body) -> Any:
        images = generator.images(sessions.studio.samples(0, "").z[:1])
        return {
            "name": generator.name,
            "sha256": generator.digest,
            "licence": generator.licence,
            "latent_size": generator.latent_size,
            "layers": generator.layers,
            "image": [*images.shape[1:]],
            "walk": WALK,
            "anchors": ANCHORS,
            "measured": sessions.studio.measured,
            "strongest": STRONGEST,
            "encoder": generator.encoder is not None,
        }

    def new(request: Request, body: Body) -> Any:
        if not body and sessions.start is not None:
            session = open_session(sessions.studio, sessions.start)
        else:
            layer = _text(body, "layer", "")
            session = Session(sessions.studio, layer, int(_number(body, "seed", 0)))
        return {"session": sessions.add(session), **session.state()}

    def reopen(request: Request, body: Body) -> Any:
        session = open_session(sessions.studio, dict(body))
        return {"session": sessions.add(session), **session.state()}

    def route(path: str, answer: Answer, method: str = "GET") -> Route:
        def work(request: Request, body: Body) -> Any:
            session = sessions.find(request.path_params["session"])
            return answer(session, request, body)

        return Route(f"/api/sessions/{{session}}{path}", _endpoint(work), methods=[method])

    return [
        Route("/api/model", _endpoint(model)),
        Route("/api/sessions", _endpoint(new), methods=["POST"]),
        Route("/api/sessions/open", _endpoint(reopen), methods=["POST"]),
        route("", lambda s, r, b: s.state()),
        route("/file", lambda s, r, b: _download(session_file(s), "session.json")),
        route("/board", _board, "POST"),
        route("/marks", _marks, "POST"),
        route("/undo", _undo, "POST"),
        route("/fit", _fit, "POST"),
        route("/measures", lambda s, r, b: s.measure(_name(r))),
        route("/images.png", _images),
        route("/walk.png", lambda s, r, b: png_grid(s.walk(_name(r), _query(r, "page")))),
        route("/image.png", _image),
        route("/directions", _save, "POST"),
        route("/directions/{name}", _remove, "DELETE"),
        route("/directions/{name}/direction.safetensors", _export_tensors),
        route("/directions/{name}/card.json", _export_card),
        route("/directions/{name}/strip.png", _export_strip),
        route("/pairs", lambda s, r, b: {"pair": s.ask_pair()}, "POST"),
        route("/pairs/{number:int}", _answer_pair, "POST"),
        route("/pairs/{number:int}/pair.png", lambda s, r, b: png_grid(s.pair_images(_at(r)))),
        route("/comparisons", _ask_comparison, "POST"),
        route("/comparisons/{number:int}", _answer_comparison, "POST"),
        route("/comparisons/{number:int}/rows.png", _comparison_images),
    ]  # fmt: skip


def _endpoint(work: Callable[[Request, Body], Any]) -> Callable[[Request], Awaitable[Response]]:
    """Reads the body, works in a thread, and answers JSON, or a PNG for bytes."""

    async def respond(request: Request) -> Response:
        body = _json(await request.body()) if request.method == "POST" else {}
        found = await run_in_threadpool(work, request, body)
        if isinstance(found, Response):
            return found
        if isinstance(found, bytes):
            return Response(found, headers=HEADERS, media_type="image/png")
        return JSONResponse(found, headers=HEADERS)

    return respond


def _json(body: bytes) -> Body:
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise HTTPException(400, "The body is no JSON object.")
    return found


def _text(body: Body, name: str, default: str | None = None) -> str:
    found = body.get(name, default)
    if not isinstance(found, str):
        raise InvalidData(f"`{name}` is missing, or no text.")
    return found


def _number(body: Body, name: str, default: float | None = None) -> float:
    found = body.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int | float) or not isfinite(found):
        raise InvalidData(f"`{name}` is missing, or no finite number.")
    return found


def _query(request: Request, name: str) -> int:
    text = request.query_params.get(name, "0")
    if not (text.isdecimal() and len(text) < 10):
        raise InvalidData(f"`{name}` is no number of an image or page.")
    return int(text)


def _name(request: Request) -> str:
    return request.query_params.get("name", "current")


def _at(request: Request) -> int:
    return request.path_params["number"]


def _board(session: Session, request: Request, body: Body) -> Any:
    session.draw_board(_text(body, "kind", "random"))
    return session.state()


def _marks(session: Session, request: Request, body: Body) -> Any:
    marks = body.get("marks")
    if not isinstance(marks, dict) or not marks:
        raise InvalidData('`marks` is missing: for example {"marks": {"12": 1}}.')
    if not all(
        sample.isdecimal() and len(sample) < 10 and type(mark) is int
        for sample, mark in marks.items()
    ):
        raise InvalidData("A mark is a number of an image with 1, -1 or 0.")
    session.mark({int(sample): mark for sample, mark in marks.items()})
    return session.state()


def _undo(session: Session, request: Request, body: Body) -> Any:
    session.undo()
    return session.state()


def _fit(session: Session, request: Request, body: Body) -> Any:
    session.fit()
    return session.state()


def _images(session: Session, request: Request, body: Body) -> bytes:
    text = request.query_params.get("samples", "")
    numbers = text.split(",")
    if len(numbers) > 200 or not all(n.isdecimal() and len(n) < 10 for n in numbers):
        raise InvalidData("`samples` is no list of at most 200 images.")
    return png_grid(session.images([int(n) for n in numbers])[None])


def _image(session: Session, request: Request, body: Body) -> bytes:
    """`mix` is a JSON object of strengths by direction."""
    found = _json(request.query_params.get("mix", "{}").encode())
    strengths = {name: _number(found, name) for name in found}
    orthogonal = request.query_params.get("orthogonal") == "1"
    images = session.mix(_query(request, "sample"), strengths, orthogonal=orthogonal)
    return png_grid(images[None])


def _save(session: Session, request: Request, body: Body) -> Any:
    session.save_direction(_text(body, "name"))
    return session.state()


def _remove(session: Session, request: Request, body: Body) -> Any:
    session.remove_direction(request.path_params["name"])
    return session.state()


def _export_tensors(session: Session, request: Request, body: Body) -> Response:
    name = request.path_params["name"]
    content = tensors(session, name)
    return Response(
        content, headers=_attachment(f"{name}.safetensors"), media_type="application/octet-stream"
    )


def _export_card(session: Session, request: Request, body: Body) -> Response:
    name = request.path_params["name"]
    return _download(card(session, name), f"{name}.json")


def _export_strip(session: Session, request: Request, body: Body) -> Response:
    name = request.path_params["name"]
    strip = png_grid(session.walk(name))
    return Response(strip, headers=_attachment(f"{name}.png"), media_type="image/png")


def _download(content: Any, file: str) -> Response:
    text = json.dumps(content, ensure_ascii=False, indent=1)
    return Response(text, headers=_attachment(file), media_type="application/json")


def _attachment(file: str) -> dict[str, str]:
    # names of directions are ASCII letters, digits, spaces, - and _
    return {**HEADERS, "Content-Disposition": f'attachment; filename="{file}"'}


def _answer_pair(session: Session, request: Request, body: Body) -> Any:
    agrees = session.answer_pair(_at(request), _text(body, "more"))
    return {"agrees": agrees, **session.state()}


def _ask_comparison(session: Session, request: Request, body: Body) -> Any:
    number = session.ask_comparison()
    return {"comparison": number, "rows": len(session.comparisons[number].order)}


def _comparison_images(session: Session, request: Request, body: Body) -> bytes:
    return png_grid(session.comparison_images(_at(request)))


def _answer_comparison(session: Session, request: Request, body: Body) -> Any:
    order = session.answer_comparison(_at(request), int(_number(body, "row")))
    return {"order": order, **session.state()}
