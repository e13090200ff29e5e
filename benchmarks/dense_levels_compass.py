"""Figures of few-shot dense prediction and of the compass page, measured in this process.

    python benchmarks/dense_levels_compass.py [--json] [dense] [compass]

Dense: `support_cache_speedup`: CPU time of predicting 100 images one by one with the support
encoded for each of them, over encoding it once (bar: 5). `bias_adaptation_share`: numbers that a
new task trains, as a share of the network's (bar: 0.03). `episodes_per_second`: episodes of four
support and four query images per CPU second.

Compass: times of the page through its HTTP interface. `board_ms`: images of the next board.
`fit_walk_ms`: from marks to the walk along their direction (bar: 500). `slider_p95_ms`: one frame
of the slider, 95th percentile (bar: 50). `page_kb`: all files of the page (bar: 150). Wall-clock
milliseconds of the shipped model; they mean something on an idle machine only, and `cpu` gives CPU
milliseconds beside them.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from starlette.testclient import TestClient

from unseen.engine.image_attributes import brightness
from unseen.lab import Lab
from unseen.methods.episodic_training import EPISODES, EpisodicTraining
from unseen.methods.few_shot_tuning import FewShotTuning
from unseen.models.token_matching import TokenMatching, token_matcher
from unseen.serve.app import PAGES, compass_app
from unseen.serve.generators import shipped_generator
from unseen.tasks.procedural_scenes import TRAINING, ProceduralScenes

CEILINGS = {"fit_walk_ms": 500, "slider_p95_ms": 50, "page_kb": 150, "bias_adaptation_share": 0.03}
FLOORS = {"support_cache_speedup": 5}
ROUNDS = 20
FRAMES = 100
QUERIES, SHOTS, STEPS = 100, 10, 20


def milliseconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall-clock and CPU time of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def compass() -> dict[str, Any]:
    """Times of the page of the shipped generator."""
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

    return {**summary(0), "page_kb": size / 1000, "cpu": summary(1)}


def cpu_seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def dense() -> dict[str, Any]:
    """Matching from ten labelled scenes, and episodes of training, at the laptop study's sizes."""
    tasks = tuple(str(label) for label in TRAINING)
    with Lab().child("init").seeded():
        switch = token_matcher()
    network = switch.module
    assert isinstance(network, TokenMatching)
    data = ProceduralScenes(n_train=320, n_test=QUERIES).build(Lab())
    few, queries = data.split("train").data[:SHOTS], data.split("test").data[:]["x"]
    labels = few["y"][:, :1]

    @torch.no_grad()
    def cached() -> None:
        support = network.encode_support(few["x"], labels)
        for image in queries:
            network(image[None], support)

    @torch.no_grad()
    def again() -> None:
        for image in queries:
            network(image[None], network.encode_support(few["x"], labels))

    cached()  # a warm-up
    speedup = cpu_seconds(again) / cpu_seconds(cached)
    share = FewShotTuning("new").share(switch)
    method = EpisodicTraining(tasks=tasks, pretraining=replace(EPISODES, steps=0),
                              budget=replace(EPISODES, steps=STEPS))  # fmt: skip
    seconds = cpu_seconds(lambda: method.fit(switch, data, Lab()))
    return {
        "support_cache_speedup": speedup,
        "bias_adaptation_share": share,
        "episodes_per_second": STEPS * method.episodes / seconds,
    }


FIGURES: dict[str, Callable[[], dict[str, Any]]] = {"dense": dense, "compass": compass}


def main() -> int:
    chosen = [name for name in FIGURES if name in sys.argv] or list(FIGURES)
    found = {name: FIGURES[name]() for name in chosen}
    if "--json" in sys.argv:
        print(json.dumps({**found, "bars": {"at most": CEILINGS, "at least": FLOORS}}))
    else:
        for values in found.values():
            for name, value in values.items():
                print(name, value)
    values = {name: value for one in found.values() for name, value in one.items()}
    high = any(values[name] > bar for name, bar in CEILINGS.items() if name in values)
    return int(high or any(values[name] < bar for name, bar in FLOORS.items() if name in values))


if __name__ == "__main__":
    sys.exit(main())
