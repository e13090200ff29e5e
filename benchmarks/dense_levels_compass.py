"""Times of the compass page, measured through its HTTP interface in this process.

    python benchmarks/dense_levels_compass.py [--json]

`board_ms`: images of the next board. `fit_walk_ms`: from marks to the walk along their direction
(bar: 500). `slider_p95_ms`: one frame of the slider, 95th percentile (bar: 50). `page_kb`: all
files of the page (bar: 150). Wall-clock milliseconds of the shipped model; they mean something on
an idle machine only, and `cpu` gives CPU milliseconds beside them.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from starlette.testclient import TestClient

from unseen.engine.image_attributes import brightness
from unseen.lab import Lab
from unseen.serve.app import PAGES, compass_app
from unseen.serve.generators import shipped_generator

BARS = {"fit_walk_ms": 500, "slider_p95_ms": 50, "page_kb": 150}
ROUNDS = 20
FRAMES = 100


def milliseconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall-clock and CPU time of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def main() -> int:
    generator = shipped_generator()
    client = TestClient(compass_app(generator), base_url="http://127.0.0.1:8765")
    state = client.post("/api/sessions", json={}).json()
    path = f"/api/sessions/{state['session']}"

    def ask(verb: str, to: str, **options: Any) -> Any:
        answer = getattr(client, verb)(path + to, **options)
        assert answer.status_code == 200, answer.text
        return answer

    z = generator.sample(2_048, Lab(state["seed"]).child("compass"))
    light = brightness(generator.images(z)).tolist()
    boards, walks, frames = [], [], []
    for _ in range(ROUNDS):
        samples = state["samples"]
        boards.append(
            milliseconds(
                lambda s=samples: ask("get", f"/images.png?samples={','.join(map(str, s))}")
            )
        )
        order = sorted(samples, key=lambda sample: light[sample])
        marks = {str(s): -1 for s in order[:4]} | {str(s): 1 for s in order[-4:]}

        def mark_to_walk(marks: dict[str, int] = marks) -> None:
            ask("post", "/marks", json={"marks": marks})
            ask("post", "/fit", json={})
            ask("get", "/walk.png")

        walks.append(milliseconds(mark_to_walk))
        state = ask("post", "/board", json={"kind": "uncertain"}).json()
    for k in range(FRAMES):
        mix = json.dumps({"current": k / 10 - 5})
        frames.append(milliseconds(lambda m=mix: ask("get", f"/image.png?sample=1600&mix={m}")))
    size = sum(len(client.get(address).content) for address in PAGES)

    def summary(column: int) -> dict[str, float]:
        return {
            "board_ms": statistics.median(time[column] for time in boards),
            "fit_walk_ms": statistics.median(time[column] for time in walks),
            "slider_p95_ms": statistics.quantiles((time[column] for time in frames), n=20)[-1],
        }

    found: dict[str, Any] = {**summary(0), "page_kb": size / 1000, "cpu": summary(1)}
    if "--json" in sys.argv:
        print(json.dumps({"compass": found, "bars": BARS}))
    else:
        for name, value in found.items():
            print(name, value)
    return int(any(found[name] > bar for name, bar in BARS.items()))


if __name__ == "__main__":
    sys.exit(main())
