"""`unseen compass`: a page in the browser that finds directions in a generator by what a person
marks.
"""

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unseen.cli.arguments import OUTPUT, Arguments
from unseen.errors import InvalidConfig, InvalidData, MissingExtra, MissingFile

GENERATOR, SERVER = "generator", "server"


def parser() -> Arguments:
    p = Arguments(
        "unseen compass",
        "Mark images as more or less of what you have in mind, and follow that direction.",
        "unseen compass                          the shipped autoencoder of Fashion-MNIST\n"
        "unseen compass my_generator.py:subject  anything that maps latents to images\n\n"
        "The page is served to this machine only; Ctrl-C ends it.",
        groups=(GENERATOR, SERVER),
    )
    p.add_argument(
        "subject",
        nargs="?",
        default="",
        help="file.py:name of an ImageGenerator, or of a module with latent_size",
    )
    p.option(GENERATOR, "--session", help="file of a saved session that every tab begins with")
    p.option(
        GENERATOR,
        "--measured",
        type=int,
        default=128,
        help="images behind every measure; fewer where a generator is slow (default 128)",
    )
    p.option(SERVER, "--port", type=int, default=8765, help="port, 0 for a free one (default 8765)")
    p.option(
        SERVER, "--host", default="127.0.0.1", help="address to listen at (default: loopback only)"
    )
    p.repeatable(SERVER, "--allow-host", "further host name under which the page may be opened")
    p.option(OUTPUT, "--quiet", action="store_true", help="print the address only")
    return p


def main(argv: Sequence[str]) -> int:
    """Serves until it is interrupted."""
    options = parser().parse_args(argv)
    if not 0 <= options.port < 65_536:
        raise InvalidConfig(
            f"There is no port {options.port}.",
            why="ports are 0 to 65535.",
            fix="leave --port out, or give 0 for a free one.",
        )
    start = None if options.session is None else read_session(Path(options.session))
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra(
            "The page in the browser needs Starlette and uvicorn.",
            why=str(error),
            fix='pip install "unseen[ui]"',
        ) from error
    from unseen.serve.app import LOOPBACK, compass_app
    from unseen.serve.generators import load_generator

    app = compass_app(
        load_generator(options.subject),
        hosts=(*LOOPBACK, options.host, *options.allow_host),
        start=start,
        measured=options.measured,
    )
    listener = listen(options.host, options.port)
    name = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{name}:{listener.getsockname()[1]}/"
    print(json.dumps({"url": address}) if options.json else address, flush=True)
    if not options.quiet:
        print("Open it in a browser; Ctrl-C ends it.", file=sys.stderr)
    config = uvicorn.Config(app, log_level="warning", server_header=False)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after it has closed
        uvicorn.Server(config).run([listener])
    return 0


def read_session(path: Path) -> Any:
    """The content of a session file."""
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise MissingFile(
            f"{path} cannot be read: {error.strerror or error}.",
            why="the session is read from it.",
            fix="check the path, or leave --session out.",
        ) from error
    except ValueError as error:
        raise InvalidData(
            f"{path} is no session of the compass.",
            why="it is not JSON.",
            fix="give a file that the page saved.",
        ) from error


def listen(host: str, port: int) -> Any:
    """A listening socket, or an error that says what stands in the way."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InvalidConfig(
            f"{host}:{port} cannot be listened at: {error.strerror or error}.",
            why="another program may use the port, or the address is not this machine's.",
            fix="choose another one: unseen compass --port 0.",
        ) from error
    return listener
