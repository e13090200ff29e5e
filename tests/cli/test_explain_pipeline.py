"""A pipeline of one's own: explained without gradients, refused where these are followed."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import unseen
from unseen.cli import main
from unseen.errors import InvalidConfig


@pytest.fixture
def frame(tmp_path, monkeypatch) -> pd.DataFrame:
    """`lab` decides, `noise` does not."""
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    rng, n = np.random.default_rng(0), 200
    lab = rng.normal(size=n)
    site = rng.choice(["a", "b"], n)
    ill = (3 * lab + rng.normal(size=n) > 0).astype(int)
    return pd.DataFrame({"lab": lab, "noise": rng.normal(size=n), "site": site, "ill": ill})


def test_a_pipeline_is_explained_by_what_needs_no_gradients(frame):
    model = make_pipeline(StandardScaler(), LogisticRegression())
    found = unseen.explain(
        model, frame, target="ill", site="site", examples=2, sample=8, draws=50, progress=False
    )
    assert "LogisticRegression" in found.document.title
    assert "Pipeline has no gradients" in found.summary()
    for one in found.results.examples:
        credits = dict(one.credits)
        assert abs(credits["lab"]) > abs(credits["noise"])


def test_the_command_explains_a_model_of_a_file(frame, tmp_path, capsys):
    frame.to_csv("table.csv", index=False)
    (tmp_path / "mine.py").write_text(
        "from sklearn.linear_model import LogisticRegression\n\n\n"
        "def make(C=1.0):\n    return LogisticRegression(C=C)\n"
    )
    command = "explain table.csv --target ill --site site --model mine.py:make(C=2) --quiet"
    few = "--examples 1 --sample 8 --draws 50"
    assert main.main(f"{command} {few}".split()) == 0


def test_influence_refuses_a_pipeline_and_says_who_takes_it():
    with pytest.raises(InvalidConfig, match="LogisticRegression has no gradients") as caught:
        unseen.influence(LogisticRegression(), target="ill")
    assert "unseen.audit(model, frame" in caught.value.fix
