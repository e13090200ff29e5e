"""Training methods compared fairly: same data, seeds, initial weights and search budget; three ways
to select; intervals.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from unseen.errors import InvalidConfig, reason
from unseen.lab import Lab
from unseen.questions.compare.candidates import MethodSpec, check_ranges, standard_methods
from unseen.questions.compare.method_scores import method_scores
from unseen.questions.compare.protocols import MethodScores, Protocol
from unseen.questions.compare.results import Results
from unseen.questions.compare.run_groups import Run, RunGroup, RunScores
from unseen.questions.compare.splits import evaluated_splits, training_domains
from unseen.questions.compare.subgroups import subgroups_of
from unseen.questions.compare.sweep import Sweep
from unseen.questions.compare.tables import ResultTable
from unseen.search_space import Space
from unseen.subjects.stacking import MOST_MODELS
from unseen.subjects.subject import Subject
from unseen.task import Use
from unseen.tasks.domains import ORACLE
from unseen.text import join_words


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every method gets `draws` settings of its hyperparameters (the first: its defaults) in each
    of `seeds` runs.
    """

    entrants: Sequence[MethodSpec] = field(default_factory=standard_methods)
    seeds: int = 3
    draws: int = 10
    protocols: Sequence[Protocol] = tuple(Protocol)
    """The first that the data allow is what the summary quotes."""
    space: Space = field(default_factory=dict)
    """Ranges by name of the hyperparameter, instead of the methods' own."""

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.draws < 1 or not self.entrants or not self.protocols:
            raise InvalidConfig(
                f"A comparison of {len(self.entrants)} methods with {self.seeds} seeds, "
                f"{self.draws} draws and "
                f"{len(self.protocols)} protocols.",
                why="each of these must be at least 1.",
                fix="use --seeds 3 --draws 10.",
            )
        names = [entrant.name for entrant in self.entrants]
        if len(set(names)) < len(names):
            raise InvalidConfig(
                "Methods named twice: "
                f"{', '.join(sorted({n for n in names if names.count(n) > 1}))}.",
                why="the table has one row per method.",
                fix="name each method once.",
            )

    def __call__(
        self,
        subjects: Sequence[Subject],
        lab: Lab,
        sweep: Sweep | None = None,
        told: Callable[[object], None] = lambda finished: None,
    ) -> Results:
        """Trains what is not kept yet, selects and reads; `told` hears of every block that is done
        or failed.
        """
        began = time.perf_counter()
        check_subjects(subjects)
        self.check_selection(subjects)
        check_ranges(self.entrants, subjects[0].budget, self.space)
        sweep = sweep or Sweep(subjects, lab, self.space)
        kept, failed = self._compute(sweep.groups(self.blocks(subjects)), sweep, told)
        labels = [subject.label for subject in subjects]
        found = {
            (e.name, at): self._sheet(e, at, kept, failed) for e in self.entrants for at in labels
        }
        sheets = {key: one for key, one in found.items() if one is not None}
        if not sheets:
            raise next(iter(failed.values()))
        usable = [p for p in self.protocols if any(p in one.validation for one in sheets.values())]
        read = ResultTable(
            subjects=subjects,
            entrants=self.entrants,
            sheets=sheets,
            protocols=usable or self.protocols[:1],
            seeds=self.seeds,
        )
        quantities = read.quantities()
        groups = subgroups_of(read.sites)
        within = [part for each in groups.values() for part in each]
        pairs = [
            read.cells(quantity, protocol) for quantity in quantities for protocol in read.protocols
        ]
        pairs += [read.cells(part, read.protocols[0]) for part in within]
        return Results(
            name=subjects[0].data_name,
            sites=list(read.sites),
            methods=[entrant.name for entrant in self.entrants],
            baseline=read.baseline,
            metrics=[quantity.name for quantity in quantities],
            protocols=read.protocols,
            seeds=self.seeds,
            draws=self.draws,
            cells=[cell for cells, _ in pairs for cell in cells],
            changes=[change for _, changes in pairs for change in changes],
            choices=read.choices(sweep),
            dots=read.dots(),
            sizes={site: _test_size(read, site) for site in read.sites},
            diverged=_divergence_counts(kept),
            missing=self._missing(subjects, sweep, failed, usable),
            trained=_stacking_notes(kept),
            subgroups={spec: [part.name for part in each] for spec, each in groups.items()},
            decisions=shared_decisions(subjects),
            warnings=list(
                dict.fromkeys(
                    [
                        *(text for one in subjects for text in one.warnings),
                        *self.domain_notices(subjects, sweep),
                    ]
                )
            ),
            seconds=time.perf_counter() - began,
        )

    def check_selection(self, subjects: Sequence[Subject]) -> None:
        """Refuses, before anything trains, draws of which no protocol could choose one."""
        able = {
            Protocol.TRAINING: any(one.task.of(Use.SELECT) for one in subjects),
            Protocol.LEFT_OUT: any(len(training_domains(one.task)) > 1 for one in subjects),
            Protocol.ORACLE: any(ORACLE in one.task.splits for one in subjects),
        }
        if self.draws == 1 or any(able[protocol] for protocol in self.protocols):
            return
        possible = [protocol.value for protocol, is_able in able.items() if is_able]
        raise InvalidConfig(
            "No draw could be selected: "
            + "; ".join(f"{NEEDS[protocol]}" for protocol in self.protocols),
            why=f"{self.draws} draws of the hyperparameters would be trained for each method, and "
            "the table would hold dashes.",
            fix=f"use the selection by {join_words(possible)}, for example --protocol training, or "
            "compare the defaults: --draws 1."
            if possible
            else "compare the defaults: --draws 1.",
        )

    def blocks(self, subjects: Sequence[Subject]) -> list[RunGroup]:
        """What is trained: the runs on all training domains, and those without one of them each."""
        runs = [Run(seed, draw) for seed in range(self.seeds) for draw in range(self.draws)]
        chunks = [tuple(runs[k : k + MOST_MODELS]) for k in range(0, len(runs), MOST_MODELS)]
        validate = Protocol.LEFT_OUT in self.protocols and self.draws > 1
        found = []
        for subject in subjects:
            without = training_domains(subject.task) if validate else []
            for entrant in self.entrants:
                found += [
                    RunGroup(entrant, subject.label, domain, chunk)
                    for domain in ["", *without]
                    for chunk in chunks
                ]
        return found

    def domain_notices(self, subjects: Sequence[Subject], sweep: Sweep) -> list[str]:
        """What can be said before training of methods that compare domains, where one domain is
        left when another one validates.
        """
        subject, refused = self._refusing_one_domain(subjects, sweep)
        if subject is None or not refused:
            return []
        return [
            f"{join_words(refused)} get{'s' * (len(refused) == 1)} no "
            f"{Protocol.LEFT_OUT}: {_one_domain(subject)}"
        ]

    def _refusing_one_domain(
        self, subjects: Sequence[Subject], sweep: Sweep
    ) -> tuple[Subject | None, list[str]]:
        """A subject of two training domains, and the methods that one of them is too few for."""
        if Protocol.LEFT_OUT not in self.protocols or self.draws == 1:
            return None, []
        # where one subject has two training domains, the others have as many
        subject = next((one for one in subjects if len(training_domains(one.task)) == 2), None)
        if subject is None:
            return None, []
        domain = training_domains(subject.task)[0]
        return subject, [
            e.name for e in self.entrants if sweep.refuses_one_domain(e, subject, domain)
        ]

    def _compute(
        self, groups: Sequence[Sequence[RunGroup]], sweep: Sweep, told: Callable[[object], None]
    ) -> tuple[dict[RunGroup, RunScores], dict[RunGroup, Exception]]:
        kept: dict[RunGroup, RunScores] = {}
        failed: dict[RunGroup, Exception] = {}
        for group in groups:
            # without the method's own runs there is nothing to select for
            group = [b for b in group if replace(b, without="") not in failed]
            try:
                kept |= zip(group, sweep(group), strict=True) if group else []
            except Exception:  # a method may refuse a task, or its code may fail: find out where
                for block in group:
                    try:
                        kept[block] = sweep([block])[0]
                    except Exception as error:
                        failed[block] = error
            for block in group:
                told(kept.get(block, failed.get(block)))
        return kept, failed

    def _sheet(
        self,
        entrant: MethodSpec,
        at: str,
        kept: Mapping[RunGroup, RunScores],
        failed: Mapping[RunGroup, Exception],
    ) -> MethodScores | None:
        mine = {
            block: scores
            for block, scores in kept.items()
            if (block.entrant, block.at) == (entrant, at)
        }
        gone = [block for block in failed if (block.entrant, block.at) == (entrant, at)]
        return method_scores(mine, gone, self.protocols, self.seeds, self.draws)

    def _missing(
        self,
        subjects: Sequence[Subject],
        sweep: Sweep,
        failed: Mapping[RunGroup, Exception],
        usable: Sequence[Protocol],
    ) -> dict[str, str]:
        found = {}
        names = {subject.label: subject.task.name for subject in subjects}
        pair, refused = self._refusing_one_domain(subjects, sweep)
        for block, error in failed.items():  # one reason at several sites is told once
            if pair is not None and block.without and block.entrant.name in refused:
                # as it was said before training
                found[f"{block.entrant.name} · {Protocol.LEFT_OUT}"] = _one_domain(pair)
            else:
                found[block.says] = reason(error).replace(f"`{names[block.at]}`", "the task")
        if self.draws == 1:
            return found | {
                "selection": "every method ran with its defaults (one draw): there was nothing to "
                "select."
            }
        return found | {p.value: NEEDS[p] for p in self.protocols if p not in usable}


NEEDS = {
    Protocol.TRAINING: "the task has no split with use=Use.SELECT.",
    Protocol.LEFT_OUT: "it needs two or more training domains.",
    Protocol.ORACLE: "the task has no split `oracle` at the site that is evaluated.",
}
"""What the protocols cannot do without."""


def _one_domain(subject: Subject) -> str:
    """Why a method that compares domains has no draw that is chosen by leaving out one of two."""
    return (
        "of two training sites one is left when the other validates, and to compare sites takes "
        f"two. One more site is needed for it ({len(evaluated_splits(subject.task)) + 3} in all)."
    )


def check_subjects(subjects: Sequence[Subject]) -> None:
    """Refuses none at all, and two that nothing tells apart."""
    labels = [subject.label for subject in subjects]
    if not subjects or len(set(labels)) < len(labels):
        raise InvalidConfig(
            f"A comparison on {len(labels)} subjects named {', '.join(labels)}."
            if labels
            else "Nothing to compare on.",
            why="every method is trained on each subject, and its scores are shown under the "
            "subject's name.",
            fix="give at least one subject, each with another `held_out` or another name of its "
            "task.",
        )


def shared_decisions(subjects: Sequence[Subject]) -> list[str]:
    """How the data were treated: told for the first subject, and of others what concerns a single
    site of theirs.
    """
    first, *others = subjects
    single = [text for one in others for text in one.decisions if text.startswith("Site ")]
    return list(dict.fromkeys([*first.decisions, *single]))


def _test_size(read: ResultTable, site: str) -> int:
    return next((s.score[site].shape[-1] for s in read.sheets.values() if site in s.score), 0)


def _divergence_counts(kept: Mapping[RunGroup, RunScores]) -> dict[str, tuple[int, int]]:
    counts: dict[str, tuple[int, int]] = {}
    for block, scores in kept.items():
        bad, all_runs = counts.get(block.entrant.name, (0, 0))
        counts[block.entrant.name] = bad + int(scores["diverged"].sum()), all_runs + len(block.runs)
    return counts


def _stacking_notes(kept: Mapping[RunGroup, RunScores]) -> dict[str, str]:
    """How many of a method's models were trained together with others."""
    counts: dict[str, tuple[int, int]] = {}
    for block, scores in kept.items():
        together, all_runs = counts.get(block.entrant.name, (0, 0))
        counts[block.entrant.name] = (
            together + int(scores["together"].sum()),
            all_runs + len(block.runs),
        )
    return {
        name: f"{total} models trained together, up to {MOST_MODELS} at a time"
        if together == total
        else f"{total} models trained one after the other"
        if not together
        else f"{together} of {total} models trained together, the others one after the other"
        for name, (together, total) in counts.items()
    }


__all__ = ["Comparison", "Results"]
