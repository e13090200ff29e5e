"""What tests of local pages share: a served application, and the system's Chromium."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The address at which the application answers inside the block."""
    import uvicorn

    from unseen.cli.local_server import listen

    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


def watch(page: Any, address: str, trouble: list[str]) -> None:
    """Collects messages on the console and requests off this machine."""

    def hear(message: Any) -> None:
        if message.type in ("error", "warning"):
            trouble.append(message.text)

    def see(request: Any) -> None:
        if not request.url.startswith((address, f"blob:{address}", "data:")):
            trouble.append(request.url)

    page.on("console", hear)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", see)
