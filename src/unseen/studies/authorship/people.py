"""Authors across books, topics and time, and people against ChatGPT: rows of estimators that were
trained on a part of the texts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from unseen import stats
from unseen.lab import Lab
from unseen.models.author_features import FUNCTION_WORDS
from unseen.models.burrows_delta import BurrowsDelta
from unseen.models.contrastive_author import ContrastiveAuthor
from unseen.models.linear_author import CharNgram, Stylometry
from unseen.studies.authorship.corpora import Corpora, seeded_order
from unseen.study import Row
from unseen.tasks.authorship.corpora import HUMAN
from unseen.tasks.authorship.passages import (
    Passage,
    count_frequent,
    mask_topics,
    split_groups,
)

ESTIMATORS: Mapping[str, Callable[[], Any]] = {
    "BurrowsDelta": BurrowsDelta,
    "Stylometry": Stylometry,
    "CharNgram": lambda: CharNgram(most=10_000),
    "ContrastiveAuthor": ContrastiveAuthor,
}
Part = Sequence[Passage]


def accuracies(train: Part, tests: Mapping[str, Part], **facts: str) -> Iterator[Row]:
    """Of every estimator on every test."""
    for name, make in ESTIMATORS.items():
        fitted = make().fit([one.text for one in train], [one.author for one in train])
        for at, test in tests.items():
            right = fitted.predict([one.text for one in test]) == [one.author for one in test]
            yield {**facts, "method": name, "at": at, "accuracy": float(np.mean(right))}


def across_books(corpora: Corpora, lab: Lab) -> Iterator[Row]:
    """One book of each author is held out; of the others a quarter of the passages."""
    passages = corpora.novels()
    books: dict[str, list[str]] = {}
    for one in passages:
        found = books.setdefault(one.author, [])
        found += [one.group] if one.group not in found else []
    rng = lab.child("books").numpy()
    held_out = {rng.choice(found) for found in books.values() if len(found) > 1}
    used = [one for one in passages if len(books[one.author]) > 1]
    known = [one for one in used if one.group not in held_out]
    is_test = rng.random(len(known)) < 0.25
    train = [one for one, test in zip(known, is_test, strict=True) if not test]
    tests = {
        "known books": [one for one, test in zip(known, is_test, strict=True) if test],
        "another book": [one for one in used if one.group in held_out],
    }
    yield from accuracies(train, tests, part="books", words="all")
    frequent = count_frequent(train)
    masked = {at: mask_topics(test, frequent) for at, test in tests.items()}
    yield from accuracies(mask_topics(train, frequent), masked, part="books", words="masked")


def across_topics(corpora: Corpora, lab: Lab, train_size: int, test_size: int) -> Iterator[Row]:
    """Each author's articles fall into two topics by their content words: trained on the larger,
    evaluated on further articles of it and on the other."""
    train: list[Passage] = []
    tests: dict[str, list[Passage]] = {"same topics": [], "another topic": []}
    passages = corpora.news()
    for author in dict.fromkeys(one.author for one in passages):
        larger, smaller = two_topics([one for one in passages if one.author == author], lab)
        if len(larger) < train_size + test_size or len(smaller) < test_size:
            continue
        larger = [larger[k] for k in seeded_order(lab, f"{author} larger", len(larger))]
        smaller = [smaller[k] for k in seeded_order(lab, f"{author} smaller", len(smaller))]
        train += larger[:train_size]
        tests["same topics"] += larger[train_size : train_size + test_size]
        tests["another topic"] += smaller[:test_size]
    yield from accuracies(train, tests, part="topics", words="all")


def two_topics(passages: Part, lab: Lab) -> tuple[list[Passage], list[Passage]]:
    """The larger and the smaller of two clusters by words that are no function words."""
    vectorizer = TfidfVectorizer(stop_words=list(FUNCTION_WORDS), min_df=2, sublinear_tf=True)
    x = vectorizer.fit_transform([one.text for one in passages])
    seed = int(lab.child("topics").numpy().integers(2**31))
    label = KMeans(2, n_init=3, random_state=seed).fit_predict(x)
    parts = [[one for one, k in zip(passages, label, strict=True) if k == j] for j in (0, 1)]
    larger, smaller = sorted(parts, key=len, reverse=True)
    return larger, smaller


def across_time(corpora: Corpora, lab: Lab) -> Iterator[Row]:
    """Trained on the earlier half of each author's papers and evaluated on the later one, against
    two random halves; then all known papers on the disputed ones."""
    known = [one for one in corpora.papers() if not one.disputed and one.author != "Jay"]
    halves: dict[str, tuple[list[Passage], list[Passage]]] = {"later": ([], []), "random": ([], [])}
    for author in dict.fromkeys(one.author for one in known):
        papers = sorted((one for one in known if one.author == author), key=lambda one: one.order)
        shuffled = [papers[k] for k in seeded_order(lab, author, len(papers))]
        for at, order in (("later", papers), ("random", shuffled)):
            halves[at][0].extend(order[: len(order) // 2])
            halves[at][1].extend(order[len(order) // 2 :])
    for at, (train, test) in halves.items():
        yield from accuracies(train, {at: test}, part="time", words="all")


def disputed_papers(corpora: Corpora) -> Iterator[Row]:
    """To whom each estimator, trained on all known papers of the two, gives them: nothing is
    drawn."""
    papers = [one for one in corpora.papers() if one.author != "Jay"]
    known = [one for one in papers if not one.disputed]
    disputed = [one for one in papers if one.disputed]
    for name, make in ESTIMATORS.items():
        fitted = make().fit([one.text for one in known], [one.author for one in known])
        for one, author in zip(disputed, fitted.predict([p.text for p in disputed]), strict=True):
            madison = int(author == "Madison")
            yield {
                "part": "disputed",
                "method": name,
                "item": one.group,
                "madison": madison,
                "n": 1,
            }


def against_people(corpora: Corpora, lab: Lab) -> Iterator[Row]:
    """People against ChatGPT, split by topic; beside them a detector that knows lengths alone."""
    for data, passages in (("essays", corpora.essays()), ("answers", corpora.answers())):
        groups = [one.group for one in passages]
        order = seeded_order(lab, data, len(set(groups)))
        evaluated = split_groups(groups, 0.4, order[:])
        train = [one for one in passages if one.group not in evaluated]
        test = [one for one in passages if one.group in evaluated]
        for name, area in detector_areas(train, test).items():
            yield {"part": "people", "data": data, "method": name, "auc": area}


def detector_areas(train: Part, test: Part) -> dict[str, float]:
    """AUROC of machine text by n-grams, style and length."""
    scores = {}
    for name in ("CharNgram", "Stylometry"):
        fitted = ESTIMATORS[name]().fit([one.text for one in train], is_machine(train))
        scores[name] = fitted.decision_function([one.text for one in test])
    linear = LogisticRegression().fit(lengths(train), is_machine(train))
    scores["length"] = linear.decision_function(lengths(test))
    return {name: stats.auc(found, is_machine(test)).value for name, found in scores.items()}


def lengths(passages: Part) -> np.ndarray:
    """Logarithms of the numbers of words and characters, and whether a full stop ends the text."""
    return np.array(
        [
            [np.log1p(len(one.text.split())), np.log1p(len(one.text)), one.text[-1] in ".!?"]
            for one in passages
        ],
        dtype=float,
    )


def is_machine(passages: Part) -> np.ndarray:
    return np.array([one.author != HUMAN for one in passages])
