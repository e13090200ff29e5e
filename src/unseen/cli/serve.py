"""`unseen serve`: a local page over the audits, comparisons and studies that are stored in the
home.
"""

from collections.abc import Sequence
from pathlib import Path

from unseen.cli.arguments import Arguments
from unseen.cli.local_server import SERVER, add_server, check_server, serve

STORE = "store"


def parser() -> Arguments:
    p = Arguments(
        "unseen serve",
        "Filter stored answers, open their reports, see what changed between two of them.",
        "unseen serve             the answers of UNSEEN_HOME, or of the user's cache\n\n"
        "The page reads only, and is served to this machine only; Ctrl-C ends it.",
        groups=(STORE, SERVER),
    )
    p.option(
        STORE,
        "--home",
        type=Path,
        help="where answers are stored (default: UNSEEN_HOME or the user's cache)",
    )
    add_server(p, 8766)
    return p


def main(argv: Sequence[str]) -> int:
    """Serves until it is interrupted."""
    options = parser().parse_args(argv)
    check_server(options)
    from unseen.runs.store import home  # after parsing: the page imports torch
    from unseen.serve.answers import answers_app
    from unseen.serve.guard import LOOPBACK

    hosts = (*LOOPBACK, options.host, *options.allow_host)
    return serve(answers_app(home(options.home), hosts), options)
