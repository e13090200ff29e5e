"""A user's own text as windows: complete and in order, the same streamed and mapped, and everything
a file can be.
"""

import gzip
import json
import os
import tarfile
import tracemalloc

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from properties import examples

from unseen.errors import CorruptFile, InvalidConfig, InvalidData, MissingFile, UnknownName
from unseen.lab import Lab
from unseen.tasks.text_corpus import Cut, TextCorpus, utf8_bytes
from unseen.tasks.text_corpus.reading import PIECE


def windows(*files, **more):
    return TextCorpus(tuple(map(str, files)), **more).build(Lab()).splits["corpus"].data


def text_of(rows) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for one in rows:
        number = int(one["document"])
        found[number] = found.get(number, b"") + bytes(one["tokens"][one["mask"]].tolist())
    return found


def lines(path, *texts, end="\n"):
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts) + end, "utf-8")
    return path


@examples(40)
@given(texts=some.lists(some.text(max_size=40), min_size=1, max_size=5), length=some.integers(2, 9))
def test_windows_are_the_documents_in_order_whether_streamed_or_mapped(
    tmp_path_factory, texts, length
):
    folder = tmp_path_factory.mktemp("corpus")
    path = lines(folder / "a.jsonl", *texts)
    encoded = [text.encode() for text in texts]
    kept = {
        k: raw[: len(raw) - (len(raw) % length == 1)] for k, raw in enumerate(encoded)
    }  # one token predicts nothing
    kept = {k: raw for k, raw in kept.items() if raw}
    streamed = list(windows(path, length=length))
    assert text_of(streamed) == kept
    assert all(len(one["tokens"]) == length and one["mask"].sum() > 1 for one in streamed)
    if not kept:
        with pytest.raises(InvalidData, match="no window"):
            windows(path, length=length, folder=str(folder / "kept"))
        return
    held = windows(path, length=length, folder=str(folder / "kept"))
    assert len(held) == len(streamed)
    for a, b in zip(streamed, (held[k] for k in range(len(held))), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_pieces_join_to_the_text_and_do_not_split_words(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text(
        "naïve “word” " * (PIECE // 5), "utf-8"
    )  # several pieces, cut inside characters
    seen = []

    def encode(text):
        seen.append(text)
        return utf8_bytes(text)

    rows = windows(path, length=64, encode=encode)
    assert text_of(rows)[0] == path.read_bytes()
    assert len(seen) > 2
    assert all(text[0] == " " for text in seen[1:])


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    path = tmp_path / "big.txt"
    path.write_text("all work and no play makes Jack a dull boy\n" * 60_000)  # 2.6 MB

    def peak(most):
        tracemalloc.start()
        try:
            assert sum(1 for _ in windows(path, length=128, most=most)) == most
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(5_000) < 1.5 * peak(600)


def test_folders_archives_and_compression_give_their_documents(tmp_path):
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("first")
    (folder / "sub" / "b.txt").write_text("second")
    (folder / "empty.txt").write_text("")
    said = []
    wanted = {0: b"first", 1: b"second"}
    assert text_of(windows(folder, length=8, note=said.append)) == wanted
    assert "empty.txt" in said[0]
    with tarfile.open(tmp_path / "both.tar.xz", "w:xz") as archive:
        archive.add(folder / "a.txt", "a.txt")
        archive.add(folder / "sub" / "b.txt", "b.txt")
    assert text_of(windows(tmp_path / "both.tar.xz", length=8)) == wanted
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"first"))
    both = windows(
        tmp_path / "a.txt.gz",
        lines(tmp_path / "b.jsonl", "second"),
        length=8,
        folder=str(tmp_path / "kept"),
    )
    assert text_of(both[k] for k in range(len(both))) == wanted
    assert both.source(1).endswith("b.jsonl:1")


def test_a_line_that_is_cut_off_is_named_or_skipped(tmp_path):
    path = lines(tmp_path / "cut.jsonl", "one", "two", "three")
    path.write_bytes(path.read_bytes()[:-9])
    begun = path.read_bytes().rfind(b"\n") + 1
    with pytest.raises(
        InvalidData, match=rf"middle of line 3.*byte {begun}.*byte {path.stat().st_size}"
    ) as caught:
        list(windows(path))
    assert "skip" in caught.value.fix
    said = []
    assert text_of(windows(path, cut=Cut.SKIP, note=said.append)) == {0: b"one", 1: b"two"}
    assert "line 3" in said[0]
    assert text_of(windows(lines(tmp_path / "whole.jsonl", "one", end=""))) == {
        0: b"one"
    }  # only the newline is missing


@pytest.mark.parametrize(
    ("name", "raw", "match"),
    [
        ("a.txt", b"", "no text"),
        ("a.jsonl", b"\n \n", "no text"),
        ("a.txt", b"caf\xe9 au lait", "byte 3 begins no character"),
        ("a.txt", "café".encode()[:-1], "byte 3 begins no character"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}\n', r"byte 27 in line 2"),
        ("a.jsonl", b'{"text": "a"}\n{"text: 3}\n{"text": "b"}\n', r"Line 2 .*byte 14.*no JSON"),
        ("a.jsonl", b"[1]\n", "Line 1 .* is a list"),
        ("a.jsonl", b'{"text": 3}\n', "`text` in line 1 .* is a int"),
    ],
)
def test_bad_text_is_refused_with_its_place(tmp_path, name, raw, match):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(InvalidData, match=match):
        list(windows(tmp_path / name, length=4))


def test_other_bad_input(tmp_path):
    path = lines(tmp_path / "a.jsonl", "one")
    with pytest.raises(UnknownName, match="body") as caught:
        list(windows(path, field="body"))
    assert "text" in caught.value.fix
    with pytest.raises(MissingFile, match=r"b\.txt"):
        windows(tmp_path / "b.txt")
    with pytest.raises(InvalidConfig, match="names no file"):
        windows()
    with pytest.raises(InvalidConfig, match="Windows of 1"):
        windows(path, length=1)
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidData, match="is empty"):
        list(windows(tmp_path / "none"))
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(os.urandom(9_000))[:-20])
    with pytest.raises((CorruptFile, InvalidData)):
        list(windows(tmp_path / "c.txt.gz"))
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(b'{"text": "abc"}\n' * 999)[:-20])
    with pytest.raises(CorruptFile, match="cannot be unpacked"):
        list(windows(tmp_path / "d.jsonl.gz"))


def test_a_half_written_map_is_never_read(tmp_path):
    path = lines(tmp_path / "a.jsonl", "one", "two")

    def failing(text):
        if text == "two":
            raise KeyboardInterrupt
        return utf8_bytes(text)

    with pytest.raises(KeyboardInterrupt):
        windows(path, encode=failing, folder=str(tmp_path / "kept"))
    assert list((tmp_path / "kept").iterdir()) == []
    assert len(windows(path, folder=str(tmp_path / "kept"))) == 2


def test_a_changed_file_is_read_anew(tmp_path):
    path = lines(tmp_path / "a.jsonl", "one")
    first = windows(path, folder=str(tmp_path / "kept"))
    lines(path, "one", "two")
    second = windows(path, folder=str(tmp_path / "kept"))
    assert (len(first), len(second)) == (1, 2)
    assert first.digest != second.digest


def test_json_lines_with_other_separators_inside_are_one_document_each(tmp_path):
    texts = ["one\u2028two", "three\u0085four"]
    lines = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    (tmp_path / "a.jsonl").write_text(lines, "utf-8")
    assert [piece.text for piece in TextCorpus((str(tmp_path / "a.jsonl"),)).read()] == texts


def test_documents_without_a_window_are_counted(tmp_path):
    texts = ["", "abcd", "", "x", "efgh"]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    corpus = TextCorpus((str(tmp_path / "a.jsonl"),), length=4, folder=str(tmp_path / "cache"))
    data = corpus.build(Lab()).splits["corpus"].data
    assert len(data) == 2
    assert [text.split(":")[0] for text in data.omissions] == [
        "2 empty documents of 5 are left out",
        "1 document of a single token of 5 is left out",
    ]
