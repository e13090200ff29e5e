"""What `unseen compass` and `unseen serve` share: options, a listening socket, and a server that
Ctrl-C ends.
"""

import argparse
import contextlib
import json
import sys
from typing import Any

from unseen.cli.arguments import OUTPUT, Arguments
from unseen.errors import InvalidConfig, MissingExtra

SERVER = "server"


def add_server(p: Arguments, port: int) -> None:
    """Where the page is served, and to whom."""
    p.option(
        SERVER, "--port", type=int, default=port, help=f"port, 0 for a free one (default {port})"
    )
    p.option(
        SERVER, "--host", default="127.0.0.1", help="address to listen at (default: loopback only)"
    )
    p.repeatable(SERVER, "--allow-host", "further host name under which the page may be opened")
    p.option(OUTPUT, "--quiet", action="store_true", help="print the address only")


def check_server(options: argparse.Namespace) -> None:
    """Refuses a port that does not exist, and a machine without the extra, before any work."""
    if not 0 <= options.port < 65_536:
        raise InvalidConfig(
            f"There is no port {options.port}.",
            why="ports are 0 to 65535.",
            fix="leave --port out, or give 0 for a free one.",
        )
    try:
        import uvicorn  # noqa: F401 - whether it is there
    except ImportError as error:
        raise MissingExtra(
            "The page in the browser needs Starlette and uvicorn.",
            why=str(error),
            fix='pip install "unseen[ui]"',
        ) from error


def serve(app: Any, options: argparse.Namespace) -> int:
    """Prints the address and serves until it is interrupted."""
    import uvicorn

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
            fix="choose another one: --port 0 takes a free one.",
        ) from error
    return listener
