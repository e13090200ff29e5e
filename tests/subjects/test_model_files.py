"""Models as they are named on the command line."""

import sys
from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from unseen.errors import InvalidConfig, InvalidData, MissingExtra, MissingFile
from unseen.subjects.model_files import load_model
from unseen.subjects.python_files import parse_call

MODELS = """
from __future__ import annotations


def make(depth: int = 1, kind: str = "gini"):
    from helper import forest

    return forest(depth, kind)


def network():
    from torch import nn

    return nn.Linear(2, 2)
"""
HELPER = """
from sklearn.tree import DecisionTreeClassifier


def forest(depth, kind):
    return DecisionTreeClassifier(max_depth=depth, criterion=kind)
"""


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one not in ("", ".")])
    monkeypatch.delitem(sys.modules, "helper", raising=False)
    Path("models").mkdir()
    Path("models/own.py").write_text(MODELS)
    Path("helper.py").write_text(HELPER)  # in the folder where the command is started


def test_a_function_with_arguments():
    assert load_model("models/own.py:make").max_depth == 1
    found = load_model("models/own.py:make(3, kind='entropy')")
    assert (found.max_depth, found.criterion) == (3, "entropy")


@pytest.mark.parametrize("text", ["make(x)", "make(", "a.b", "make(__import__('os'))", ""])
def test_only_plain_arguments(text):
    with pytest.raises(InvalidConfig, match="plain arguments"):
        parse_call(text)


@pytest.mark.parametrize("name", ["m.pkl", "m.joblib", "m.pickle", "M.PKL"])
def test_a_pickle_is_never_opened(name):
    with pytest.raises(InvalidConfig, match="is a pickle") as error:
        load_model(name)
    assert "skops" in error.value.fix


def test_what_is_no_model():
    with pytest.raises(InvalidConfig, match="names nothing that can be made"):
        load_model("models/own.py")
    with pytest.raises(MissingFile, match="no file"):
        load_model("models/other.py:make")
    with pytest.raises(InvalidData, match="gives a Linear"):
        load_model("models/own.py:network")


def test_a_file_of_skops(monkeypatch):
    monkeypatch.setitem(sys.modules, "skops", None)
    with pytest.raises(MissingExtra, match="needs skops"):
        load_model("m.skops")
    monkeypatch.delitem(sys.modules, "skops")
    io = pytest.importorskip("skops.io")
    io.dump(LogisticRegression(C=3.0).fit([[0.0], [1.0]], [0, 1]), "m.skops")
    assert load_model("m.skops").C == 3.0
    encoder = make_pipeline(OneHotEncoder(), LogisticRegression()).fit([["a"], ["b"]], [0, 1])
    io.dump(encoder, "encoder.skops")
    assert load_model("encoder.skops").predict([["b"]]) == [1]
    with pytest.raises(MissingFile):
        load_model("other.skops")


class Unknown(LogisticRegression):
    """A type that skops does not know."""


def test_types_that_skops_does_not_know_are_refused():
    io = pytest.importorskip("skops.io")
    io.dump(Unknown().fit([[0.0], [1.0]], [0, 1]), "m.skops")
    with pytest.raises(InvalidData, match="Unknown") as error:
        load_model("m.skops")
    assert "trusted" in error.value.fix
