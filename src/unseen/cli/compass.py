"""`unseen compass`: a page in the browser that finds directions in a generator by what a person
marks.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unseen.cli.arguments import Arguments
from unseen.cli.local_server import SERVER, add_server, check_server, serve
from unseen.errors import InvalidData, MissingFile

GENERATOR = "generator"


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
    add_server(p, 8765)
    return p


def main(argv: Sequence[str]) -> int:
    """Serves until it is interrupted."""
    options = parser().parse_args(argv)
    check_server(options)
    start = None if options.session is None else read_session(Path(options.session))
    from unseen.serve.app import compass_app
    from unseen.serve.generators import load_generator
    from unseen.serve.guard import LOOPBACK

    app = compass_app(
        load_generator(options.subject),
        hosts=(*LOOPBACK, options.host, *options.allow_host),
        start=start,
        measured=options.measured,
    )
    return serve(app, options)


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
