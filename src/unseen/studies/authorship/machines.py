"""Machine text across generators and domains, which generator it was, and where it takes over."""

from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.metrics import f1_score

from unseen import stats
from unseen.lab import Lab
from unseen.measures.machine_text import Statistic
from unseen.measures.machine_text.scorer import TextScorer
from unseen.measures.machine_text.takeover import change_statistics
from unseen.measures.machine_text.token_statistics import TokenStatistics
from unseen.models.linear_author import CharNgram
from unseen.studies.authorship.corpora import Corpora, scoring_model, seeded_order
from unseen.studies.authorship.people import detector_areas, is_machine
from unseen.study import Row
from unseen.tasks.authorship import passages_of
from unseen.tasks.authorship.corpora import HUMAN
from unseen.tasks.authorship.passages import Pair, Passage, split_groups

FEWEST = 20
"""Words that must be left behind the common beginning."""
MARGIN = 8
"""Tokens at either end where no change is sought."""


def usable_pairs(corpora: Corpora, domain: str, generator: str) -> list[Pair]:
    return [
        pair for pair in corpora.pairs(domain, generator) if len(pair.tails()[0].split()) >= FEWEST
    ]


def sources_of(files: Sequence[Sequence[Pair]]) -> list[str]:
    return list(dict.fromkeys(pair.source for pairs in files for pair in pairs))


def across_generators(
    corpora: Corpora, lab: Lab, domains: tuple[str, str], generators: tuple[str, ...]
) -> Iterator[Row]:
    """Trained on the first generator and domain; evaluated on all, with sources that were not
    trained on."""
    trained, home = generators[0], domains[0]
    files = {
        (domain, one): usable_pairs(corpora, domain, one)
        for domain in domains
        for one in generators
    }
    sources = sources_of(list(files.values()))
    evaluated = split_groups(sources, 1 / 3, seeded_order(lab, "sources", len(sources)))
    train = passages_of([p for p in files[home, trained] if p.source not in evaluated])
    tests = {
        key: passages_of([p for p in pairs if p.source in evaluated])
        for key, pairs in files.items()
    }
    fitted = CharNgram().fit([one.text for one in train], is_machine(train))
    for (domain, generator), test in tests.items():
        scores = fitted.decision_function([one.text for one in test])
        yield {
            "part": "generators",
            "method": "CharNgram",
            "domain": domain,
            "generator": generator,
            "auc": stats.auc(scores, is_machine(test)).value,
        }
    areas = detector_areas(train, tests[home, trained])
    shuffled = CharNgram().fit(
        [one.text for one in train], lab.child("shuffle").numpy().permutation(is_machine(train))
    )
    test = tests[home, trained]
    scores = shuffled.decision_function([one.text for one in test])
    areas["shuffled labels"] = stats.auc(scores, is_machine(test)).value
    for name in ("Stylometry", "length", "shuffled labels"):
        yield {
            "part": "generators",
            "method": name,
            "domain": home,
            "generator": trained,
            "auc": areas[name],
        }


def name_generator(
    corpora: Corpora, lab: Lab, domains: tuple[str, str], generators: tuple[str, ...]
) -> Iterator[Row]:
    """Which of the generators or a person wrote it: macro-F1 within the domain and in the other."""
    home, other = domains
    files = {
        (domain, one): usable_pairs(corpora, domain, one)
        for domain in domains
        for one in generators
    }
    sources = sources_of(list(files.values()))
    evaluated = split_groups(sources, 1 / 3, seeded_order(lab, "names", len(sources)))
    parts = {
        key: label_generators([p for p in pairs if p.source not in evaluated])
        + label_generators([p for p in pairs if p.source in evaluated], "test ")
        for key, pairs in files.items()
    }
    everything = {
        domain: one_human_each([p for one in generators for p in parts[domain, one]])
        for domain in domains
    }
    train = [one for one in everything[home] if not one.domain.startswith("test ")]
    fitted = CharNgram(most=10_000).fit([p.text for p in train], [p.author for p in train])
    for domain in (home, other):
        test = [one for one in everything[domain] if one.domain.startswith("test ")]
        predicted = fitted.predict([one.text for one in test])
        score = f1_score([one.author for one in test], predicted, average="macro")
        yield {
            "part": "names",
            "at": "same domain" if domain == home else "another domain",
            "macro_f1": float(score),
            "classes": len(generators) + 1,
        }


def label_generators(pairs: Sequence[Pair], mark: str = "") -> list[Passage]:
    """Both texts of each pair, the machine's under the name of its generator."""
    found = []
    for pair in pairs:
        human, machine = pair.tails()
        found.append(Passage(human, HUMAN, pair.source, mark + pair.domain))
        found.append(Passage(machine, pair.generator, pair.source, mark + pair.domain))
    return found


def one_human_each(passages: Sequence[Passage]) -> list[Passage]:
    """The files of a domain share their human texts: each once."""
    seen: set[str] = set()
    found = []
    for one in passages:
        if one.author == HUMAN:
            if one.group in seen:
                continue
            seen.add(one.group)
        found.append(one)
    return found


def zero_shot(
    corpora: Corpora, domain: str, generator: str, pairs: int, words: int, first: int = 0
) -> Iterator[Row]:
    """Statistics of the text behind the common beginning, which is its context, and the place of
    the largest change in each machine text as it is.
    """
    chosen = usable_pairs(corpora, domain, generator)[first : first + pairs]
    scorer = TextScorer(scoring_model(corpora), length=256)
    texts = [cut(text, words) for p in chosen for text in (p.human, p.machine)]
    scored = scorer.score(texts)
    for k, (text, found) in enumerate(zip(texts, scored, strict=True)):
        pair, machine = chosen[k // 2], k % 2
        # both have the same words up to the prefix, whatever stands between them
        ends = np.array(scorer.ends(text))
        start = int((ends <= len(" ".join(pair.machine[: pair.prefix].split()))).sum())
        yield {
            "part": "zero-shot",
            "file": f"{domain} {generator}",
            "item": k // 2,
            "machine": machine,
            **{one.name.lower(): one.of(tail(found, start)) for one in Statistic},
        }
        at = boundary(found, ends)
        truth = len(" ".join(pair.machine[: pair.prefix].split()))
        yield {
            "part": "change",
            "kind": "prefix" if machine else "prefix, human text",
            "file": f"{domain} {generator}",
            "item": k // 2,
            "error": abs(at - truth) / len(text),
            "middle": abs(len(text) / 2 - truth) / len(text),
        }


def join_texts(
    corpora: Corpora, lab: Lab, domain: str, generator: str, pairs: int, words: int, first: int = 0
) -> Iterator[Row]:
    """A person's text up to a random word between a fifth and four fifths, then a machine's."""
    chosen = usable_pairs(corpora, domain, generator)[first : first + pairs]
    scorer = TextScorer(scoring_model(corpora), length=256)
    rng = lab.child("cuts").numpy()
    texts, truths = [], []
    for pair in chosen:
        human, machine = (text.split()[:words] for text in (pair.human, pair.machine))
        size = min(len(human), len(machine))
        at = int(size * rng.uniform(0.2, 0.8))
        truths.append(len(" ".join(human[:at])))
        texts.append(" ".join([*human[:at], *machine[at:size]]))
    for k, (text, found) in enumerate(zip(texts, scorer.score(texts), strict=True)):
        at = boundary(found, np.array(scorer.ends(text)))
        yield {
            "part": "change",
            "kind": "joined",
            "file": f"{domain} {generator}",
            "item": k,
            "error": abs(at - truths[k]) / len(text),
            "middle": abs(len(text) / 2 - truths[k]) / len(text),
        }


def cut(text: str, words: int) -> str:
    """The first words, with one space between them."""
    return " ".join(text.split()[:words])


def tail(text: TokenStatistics, start: int) -> TokenStatistics:
    """The statistics from token `start` of the text on; its first token has none."""
    names = ("log_probability", "mean", "variance", "rank")
    return TokenStatistics(*(getattr(text, name)[max(0, start - 1) :] for name in names))


def boundary(text: TokenStatistics, ends: np.ndarray) -> int:
    """The character behind which log-probabilities rise most over what the scorer expects,
    `MARGIN` tokens or more from either end."""
    found = change_statistics((text.log_probability - text.mean).double().numpy())
    margin = min(MARGIN, (len(found) + 1) // 2)
    inside = found[margin - 1 : len(found) - margin + 1]
    # the first part holds so many scored tokens, and the first token, which is not scored
    return int(ends[int(inside.argmax()) + margin])
