"""The compass over HTTP: a simulated person who sees only what the page sends, and requests that
are refused.
"""

import io
import json
import math

import pytest
import torch
from PIL import Image

from unseen.engine.image_attributes import brightness
from unseen.errors import InvalidConfig, InvalidData, MissingExtra, UnseenError
from unseen.lab import Lab
from unseen.models.generator import VAE, ConvDecoder, ImageGenerator
from unseen.serve.generators import load_generator, shipped_generator
from unseen.studies.latent_compass import SimulatedPerson

pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from starlette.testclient import TestClient

from unseen.serve.app import compass_app
from unseen.serve.guard import LARGEST_BODY


def small_generator(seed: int = 0) -> ImageGenerator:
    with Lab(seed).seeded():
        model = VAE((1, 8, 8), latents=4, width=16)
        with torch.no_grad():  # images that differ
            for parameter in model.decoder.parameters():
                parameter.mul_(3)
    return model.generator("small")


GENERATORS = {"shipped": shipped_generator(), "small": small_generator()}


def client(generator: ImageGenerator | None = None, **options) -> TestClient:
    app = compass_app(generator or GENERATORS["small"], **options)
    return TestClient(app, base_url="http://127.0.0.1:8765", raise_server_exceptions=False)


class Tab:
    """What a tab of the browser does."""

    def __init__(self, client: TestClient, **body) -> None:
        self.client = client
        self.state = self.post_at("/api/sessions", body)
        self.path = f"/api/sessions/{self.state['session']}"

    def post_at(self, path: str, body: dict) -> dict:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: dict | None = None) -> dict:
        return self.post_at(self.path + path, body or {})

    def json(self, path: str = "") -> dict:
        answer = self.client.get(self.path + path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def pixels(self, path: str) -> torch.Tensor:
        """[height, width] of a PNG, in [0, 1]."""
        answer = self.client.get(self.path + path)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/png"
        image = Image.open(io.BytesIO(answer.content)).convert("L")
        values = torch.tensor(list(image.tobytes()), dtype=torch.float32) / 255
        return values.view(image.height, image.width)

    def board(self, samples: list[int]) -> torch.Tensor:
        """[n, 1, h, w]: the images of a strip, cut apart."""
        strip = self.pixels(f"/images.png?samples={','.join(map(str, samples))}")
        return torch.stack(strip.chunk(len(samples), 1))[:, None]

    def work(self, person: SimulatedPerson, boards: int, lab: Lab = Lab()) -> None:
        for turn in range(boards):
            if turn:
                kind = "uncertain" if turn > 1 else "random"
                self.state = self.post("/board", {"kind": kind})
            samples = self.state["samples"]
            marks = person.mark(self.board(samples), lab.child(turn))
            named = {str(s): m for s, m in zip(samples, marks, strict=True) if m}
            self.state = self.post("/marks", {"marks": named})
            self.state = self.post("/fit")


def test_a_simulated_person_finds_brightness_through_the_interface():
    tab = Tab(client(GENERATORS["shipped"]))
    tab.work(SimulatedPerson(brightness, deviation=0.12), boards=5)
    assert len(tab.state["more"]) == len(tab.state["less"]) == 20
    measures = tab.json("/measures")
    effects = {one["attribute"]: one for one in measures["effects"]}
    assert effects["brightness"]["low"] > 0.4
    assert effects["brightness"]["value"] < effects["brightness"]["high"]
    assert measures["marks_test"]["p"] < 0.01
    low, high = measures["safe_range"]
    assert low < 0 < high
    # walking along it makes new images lighter, row by row
    walk = tab.pixels("/walk.png").view(5, 28, 7, 28).mean((1, 3))
    assert (walk[:, -1] > walk[:, 0]).all()


def test_blind_answers_of_the_same_person_agree():
    tab = Tab(client(GENERATORS["shipped"]))
    tab.work(SimulatedPerson(brightness, deviation=0.12), boards=4)
    for _ in range(12):
        number = tab.post("/pairs")["pair"]
        left, right = tab.pixels(f"/pairs/{number}/pair.png").chunk(2, 1)
        side = "left" if left.mean() > right.mean() else "right"
        answer = tab.post(f"/pairs/{number}", {"more": side})
    assert answer["blind"]["n"] == 12
    assert answer["blind"]["value"] > 0.8
    assert answer["blind"]["low"] < answer["blind"]["value"]
    assert set(tab.json("/file")["log"][0]) <= {*range(1_536), -1, 1}  # pairs are no marks
    again = tab.client.post(f"{tab.path}/pairs/{number}", json={"more": "left"})
    assert again.status_code == 422
    tab.post("/fit")
    assert tab.json()["blind"] is None  # another direction has other answers


def fitted(**body) -> Tab:
    tab = Tab(client(), **body)
    samples = tab.state["samples"]
    marks = {str(s): 1 if k < 5 else -1 for k, s in enumerate(samples[:10])}
    tab.state = tab.post("/marks", {"marks": marks})
    tab.state = tab.post("/fit")
    return tab


def mixed(tab: Tab, sample: int = 1_700, more: str = "", **strengths: float) -> torch.Tensor:
    return tab.pixels(f"/image.png?sample={sample}&mix={json.dumps(strengths)}{more}")


@pytest.mark.parametrize("layer", ["", "first_relu"])
def test_strength_zero_is_the_image_and_others_are_not(layer):
    tab = fitted(layer=layer)
    plain = tab.board([1_700])[0, 0]
    assert torch.equal(mixed(tab), plain)
    assert torch.equal(mixed(tab, current=0), plain)
    assert not torch.equal(mixed(tab, current=2), plain)
    assert tab.pixels("/walk.png").shape == (5 * 8, 7 * 8)
    assert tab.json("/measures")["effects"]


def test_directions_are_saved_mixed_and_removed():
    tab = fitted()
    tab.post("/directions", {"name": "first one"})
    tab.post("/marks", {"marks": {str(tab.state["samples"][0]): -1}})
    assert tab.json()["changed"]
    tab.post("/fit")
    tab.post("/directions", {"name": "second"})
    one = mixed(tab, **{"first one": 2})
    assert torch.equal(mixed(tab, **{"first one": 2, "second": 0}), one)
    both = mixed(tab, **{"first one": 2, "second": 2})
    apart = mixed(tab, more="&orthogonal=1", **{"first one": 2, "second": 2})
    assert not torch.equal(both, apart)
    # a direction beside itself has nothing of its own
    tab.post("/directions", {"name": "third"})
    doubled = mixed(tab, more="&orthogonal=1", **{"second": 2, "third": 2})
    assert torch.equal(doubled, mixed(tab, second=2))
    answer = tab.client.delete(f"{tab.path}/directions/second")
    assert answer.json()["directions"] == ["first one", "third"]


def test_comparison_hides_the_order_until_it_is_answered():
    tab = fitted()
    asked = tab.post("/comparisons")
    assert asked == {"comparison": 0, "rows": 4}
    assert tab.pixels("/comparisons/0/rows.png").shape == (4 * 8, 7 * 8)
    answer = tab.post("/comparisons/0", {"row": 2})
    assert {*answer["order"]} == {"mine", "PCA", "SeFa", "random"}
    assert answer["compared"]["chance"] == 0.25
    assert answer["compared"]["n"] == 1


def test_a_session_file_gives_the_same_directions_in_another_run():
    tab = fitted()
    tab.post("/directions", {"name": "kept"})
    tab.post("/undo")
    file = tab.json("/file")
    other = client()
    copy = Tab(other)
    copy.state = copy.post_at("/api/sessions/open", file)
    copy.path = f"/api/sessions/{copy.state['session']}"
    assert copy.json("/file") == file
    name = "/directions/kept/direction.safetensors"
    assert other.get(copy.path + name).content == tab.client.get(tab.path + name).content
    started = Tab(client(start=file))
    assert started.json("/file") == file


def test_exports_carry_their_card():
    from safetensors.torch import load

    tab = fitted()
    tab.post("/directions", {"name": "kept"})
    card = tab.json("/directions/kept/card.json")
    assert card["model_sha256"] == GENERATORS["small"].digest
    assert (card["seed"], card["edit_site"]) == (0, "latent")
    assert len(card["marks"]["more"]) == 5
    assert card["measures"]["effects"][0]["low"] < card["measures"]["effects"][0]["high"]
    answer = tab.client.get(f"{tab.path}/directions/kept/direction.safetensors")
    tensors = load(answer.content)
    assert float(tensors["vector"].norm()) == pytest.approx(1)
    assert tab.pixels("/directions/kept/strip.png").shape == (40, 56)


def test_fewer_images_are_measured_where_a_generator_is_slow():
    tab = fitted()
    small = client(measured=9)
    assert small.get("/api/model").json()["measured"] == 9
    copy = Tab(small)
    copy.path = f"/api/sessions/{copy.post_at('/api/sessions/open', tab.json('/file'))['session']}"
    assert copy.json("/measures")["effects"][0]["n"] == copy.json("/measures")["images"] == 9
    for number in (1, 513):
        with pytest.raises(InvalidConfig):
            client(measured=number)


def test_tabs_do_not_share_a_session():
    one = fitted()
    other = Tab(one.client)
    assert other.path != one.path
    assert other.json()["marks"] == {}
    assert one.json()["fitted"]


def test_marks_are_a_set_and_can_be_undone():
    tab = Tab(client())
    first = str(tab.state["samples"][0])
    for mark in (1, 1, -1):
        state = tab.post("/marks", {"marks": {first: mark}})
    assert (state["more"], state["less"]) == ([], [int(first)])
    assert tab.post("/undo")["more"] == [int(first)]
    assert tab.post("/marks", {"marks": {first: 0}})["marks"] == {}


def test_the_page_and_its_parts_are_small_and_ask_nobody_else():
    served = client()
    total = 0
    for path in ("/", "/compass.js", "/compass.css", "/favicon.svg", "/favicon.ico"):
        answer = served.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "//" not in answer.text.replace("// ", "").replace("http://www.w3.org/2000/svg", "")
        total += len(answer.content)
    assert total < 150_000


def test_the_page_says_what_is_missing():
    tab = Tab(client(ImageGenerator(GENERATORS["small"].decoder, 4)))
    assert tab.state["missing"] == ["Mark at least one image in each group."]
    more, less = tab.state["samples"][:2]
    said = " ".join(tab.post("/marks", {"marks": {str(more): 1, str(less): -1}})["missing"])
    for words in ("difference of two means", "against chance", "blind", "no encoder"):
        assert words in said


REFUSED = {
    "one side only": ("post", "/fit", {}, 422, "Mark at least one image in each group"),
    "unknown image": ("post", "/marks", {"marks": {"99999": 1}}, 422, "99999"),
    "no image": ("post", "/marks", {"marks": {"../x": 1}}, 422, "number of an image"),
    "mark of two": ("post", "/marks", {"marks": {"1": 2}}, 422, "Mark 2 of image 1"),
    "true": ("post", "/marks", {"marks": {"1": True}}, 422, "1, -1 or 0"),
    "no marks": ("post", "/marks", {}, 422, "`marks` is missing"),
    "no direction": ("get", "/walk.png", None, 422, "no direction yet"),
    "nothing to undo": ("post", "/undo", {}, 422, "nothing to undo"),
    "unknown kind": ("post", "/board", {"kind": "best"}, 422, "random"),
    "uncertain at once": ("post", "/board", {"kind": "uncertain"}, 422, "no direction yet"),
    "unknown direction": ("get", "/walk.png?name=x", None, 422, "There is no direction `x`"),
    "no name": ("post", "/directions", {}, 422, "`name` is missing"),
    "unknown pair": ("post", "/pairs/7", {"more": "left"}, 422, "no question 7"),
    "unknown page": ("get", "/nothing", None, 404, "nothing at this address"),
    "wrong verb": ("get", "/fit", None, 405, "not used so"),
    "no samples": ("get", "/images.png?samples=a", None, 422, "list of at most 200"),
    "far sample": ("get", "/images.png?samples=99999", None, 422, "does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_requests_that_make_no_sense_are_refused_in_one_sentence(case):
    verb, path, body, status, words = REFUSED[case]
    tab = Tab(client())
    options = {} if body is None else {"json": body}
    answer = getattr(tab.client, verb)(tab.path + path, **options)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert tab.json()["marks"] == {}


@pytest.mark.parametrize("strength", ["NaN", "Infinity", "20.5", "-1e9", '"2"', "true", "null"])
def test_strengths_that_are_not_finite_or_too_large_are_refused(strength):
    tab = fitted()
    answer = tab.client.get(f'{tab.path}/image.png?sample=0&mix={{"current": {strength}}}')
    assert answer.status_code == 422
    assert math.isfinite(len(answer.json()["error"]))


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b", "", ".hidden", "x" * 41, "ü", "current"]
)
def test_names_that_could_leave_the_folder_are_refused(name):
    tab = fitted()
    answer = tab.client.post(f"{tab.path}/directions", json={"name": name})
    assert answer.status_code == 422
    assert "name" in answer.json()["error"]


@pytest.mark.parametrize(
    "path", ["/../pyproject.toml", "/%2e%2e/pyproject.toml", "/page/compass.html", "//etc/passwd"]
)
def test_paths_out_of_the_page_lead_nowhere(path):
    answer = client().get(path)
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]


def test_a_layer_that_does_not_exist_is_refused_with_those_that_do():
    answer = client().post("/api/sessions", json={"layer": "fourth"})
    assert answer.status_code == 422
    assert "first_relu, second" in answer.json()["error"]
    for body in ({"layer": 3}, {"seed": "x"}, {"seed": -1}, {"seed": 1e300}):
        assert client().post("/api/sessions", json=body).status_code == 422


def test_a_session_of_another_model_is_refused():
    file = fitted().json("/file")
    answer = client(small_generator(1)).post("/api/sessions/open", json=file)
    assert answer.status_code == 409
    assert "another model" in answer.json()["error"]
    with pytest.raises(InvalidData):
        client(small_generator(1), start=file)


@pytest.mark.parametrize(
    "change",
    [{"format": "x"}, {"log": 3}, {"log": [[99999, 1]]}, {"boards": [["random", [-4]]]},
     {"directions": [{"name": "../x", "marks": {"1": 1, "2": -1}}]}, {"layer": "none"},
     {"seed": -1}, {"blind": [["more"]]}],
)  # fmt: skip
def test_damaged_session_files_are_refused(change):
    file = {**fitted().json("/file"), **change}
    answer = client().post("/api/sessions/open", json=file)
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_bodies_that_are_no_object_are_refused(content):
    answer = client().post("/api/sessions/open", content=content)
    assert answer.status_code in (400, 422)


def test_bodies_that_are_too_large_are_refused_with_and_without_their_length():
    served = client()
    large = b" " * (LARGEST_BODY + 1)
    answers = [
        served.post("/api/sessions", content=large),
        served.post("/api/sessions", content=iter([large[: len(large) // 2]] * 3)),
    ]
    for answer in answers:
        assert answer.status_code == 413
        assert "too large" in answer.json()["error"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", ""]
)
def test_foreign_hosts_are_refused(host):
    answer = client().get("/api/model", headers={"host": host})
    assert answer.status_code == 403
    assert "host" in answer.json()["error"]


def test_other_sites_cannot_send_requests_and_named_hosts_can():
    assert (
        client()
        .post("/api/sessions", json={}, headers={"origin": "http://evil.example"})
        .status_code
        == 403
    )
    same = client().post("/api/sessions", json={}, headers={"origin": "http://127.0.0.1:8765"})
    assert same.status_code == 200
    for host in ("localhost:1", "[::1]:8765"):
        assert client().get("/", headers={"host": host}).status_code == 200
    assert client(hosts=("my.lab",)).get("/", headers={"host": "my.lab:80"}).status_code == 200


def test_sessions_of_closed_tabs_give_way():
    served = client()
    first = Tab(served)
    from unseen.serve.app import MOST_SESSIONS

    for _ in range(MOST_SESSIONS):
        Tab(served)
    answer = served.get(first.path)
    assert answer.status_code == 404
    assert "reload" in answer.json()["error"]


def test_a_gan_and_colour_images_are_served():
    with Lab().seeded():
        tab = Tab(client(ImageGenerator(ConvDecoder(), 16, "gan")), layer="upsample")
    assert tab.board(tab.state["samples"]).shape == (12, 1, 28, 28)
    with Lab().seeded():
        colour = torch.nn.Sequential(
            torch.nn.Linear(4, 48), torch.nn.Sigmoid(), torch.nn.Unflatten(1, (3, 4, 4))
        )
    tab = Tab(client(ImageGenerator(colour, 4)))
    png = tab.client.get(f"{tab.path}/images.png?samples=0,1").content
    image = Image.open(io.BytesIO(png))
    assert (image.mode, image.size) == ("RGB", (8, 4))
    pixels = ImageGenerator(colour, 4).images(
        ImageGenerator(colour, 4).sample(2_048, Lab(0).child("compass"))[:1]
    )
    assert image.getpixel((1, 2)) == tuple((pixels[0, :, 2, 1] * 255).round().int().tolist())


def test_a_generator_from_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def subject():\n"
        "    decoder = nn.Sequential(nn.Linear(3, 16), nn.Sigmoid(), nn.Unflatten(1, (1, 4, 4)))\n"
        "    decoder.latent_size = 3\n"
        "    return decoder\n"
        "def wrong():\n"
        "    decoder = subject()\n"
        "    decoder.latent_size = 5\n"
        "    return decoder\n"
        "number = 3\n"
    )
    assert load_generator("mine.py:subject").images(torch.zeros(2, 3)).shape == (2, 1, 4, 4)
    for text in (
        "mine.py:number",
        "mine.py:wrong",
        "mine.py:missing",
        "mine.py",
        "mine.csv",
        "no.py:x",
    ):
        with pytest.raises(UnseenError):
            load_generator(text)


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    import sys

    from unseen.cli import compass

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtra, match="unseen\\[ui\\]"):
        compass.main([])
