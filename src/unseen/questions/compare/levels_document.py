"""The comparison on levels as a document."""

from collections.abc import Mapping
from typing import Any

from unseen.document import Document, Note, Paragraph, Section, Table, Tone, Value
from unseen.figure import Dots
from unseen.questions.compare.levels import CLONING, MEANINGS, LevelResults, mean_return
from unseen.reading import Reading
from unseen.tasks.levels import TRAINING, UNSEEN
from unseen.text import count_intervals, count_noun, format_reading, join_words

QUARTILES = "IQM over runs"
OVER = "unseen, minus bc"


def rank_methods(found: LevelResults) -> list[str]:
    """The best on unseen levels first."""
    return sorted(found.returns, key=lambda name: -found.reading(name, UNSEEN).value)


def levels_document(found: LevelResults, source: str, environment: str) -> Document:
    return Document(
        kicker="logged games split by level",
        title=source,
        lead=_lead(found),
        sections=[
            Section("Which method holds on unseen levels", [_scores(found), *_notes(found)]),
            Section("What more levels or more transitions would bring", _more(found)),
            Section("Return by method", [_figure(found)]),
            Section("How it was compared", [Paragraph(text) for text in _method(found)]),
            Section("What these data cannot tell", [Paragraph(text) for text in _limits(found)]),
        ],
        facts={"data": source, "environment": environment},
    )


def _lead(found: LevelResults) -> str:
    best = rank_methods(found)[0]
    seen, unseen = found.reading(best, TRAINING), found.reading(best, UNSEEN)
    gap = found.gap(best)
    text = (
        f"Highest return on {count_noun(len(found.levels.unseen), 'unseen level')}: {best} with "
        f"{format_reading(unseen)}; on training levels it has {format_reading(seen)}, a gap of "
        f"{format_reading(gap)}. "
    )
    others = rank_methods(found)[1:]
    close = [name for name in others if not found.is_clearly_better(best, name)]
    if close:
        text += f"Whether it is better than {join_words(close)} is undecided. "
    random = mean_return(found.random[UNSEEN])
    text += f"A random player has {format_reading(random)}"
    if found.planner is not None:
        text += f", the planner {found.planner[UNSEEN].mean():.2f}"
    return text + f", the logged games {found.logged:.2f}."


def _scores(found: LevelResults) -> Table:
    paired = CLONING in found.returns
    rows: list[dict[str, Value]] = []
    for name in rank_methods(found):
        row: dict[str, Value] = {
            "player": name,
            TRAINING: found.reading(name, TRAINING),
            UNSEEN: found.reading(name, UNSEEN),
            "gap": found.gap(name),
            QUARTILES: found.quartile_mean(name),
        }
        if paired:
            row[OVER] = None if name == CLONING else found.over_cloning(name)
        rows.append(row)
    others = {"random": found.random} | ({"planner": found.planner} if found.planner else {})
    for name, returns in others.items():
        rows.append(
            {"player": name}
            | {
                part: float(values.mean()) if name == "planner" else mean_return(values)
                for part, values in returns.items()
            }
        )
    rows.append({"player": "logged games", TRAINING: found.logged})
    cells = sum(isinstance(value, Reading) for row in rows for value in row.values())
    return Table(
        rows=rows,
        columns=("player", TRAINING, UNSEEN, "gap", QUARTILES, *((OVER,) if paired else ())),
        caption=f"Mean return of the greedy policy over {count_noun(found.seeds, 'seed')} and the "
        "levels, with 95 % intervals over both; the last columns: interquartile mean over runs on "
        "unseen levels (of up to three runs their mean), and the paired difference from "
        f"{CLONING}.",
        footnotes=(count_intervals(cells),),
    )


def _figure(found: LevelResults) -> Dots:
    names = rank_methods(found)
    return Dots(
        title="Return on training and unseen levels",
        rows=names,
        values={part: [found.reading(name, part) for name in names] for part in (TRAINING, UNSEEN)},
        label="return",
    )


def _notes(found: LevelResults) -> list[Note]:
    notes = []
    if found.dropped:
        notes.append(
            Note(
                f"{count_noun(found.dropped, 'unseen level')} left out: training or another unseen "
                "level begins in the same layout.",
                Tone.NEUTRAL,
                "A layout that training showed is no unseen level, whatever its number.",
                code="levels-known-layouts",
            )
        )
    random = mean_return(found.random[UNSEEN])
    weak = [name for name in found.returns if not found.reading(name, UNSEEN).low > random.value]
    if weak:
        notes.append(
            Note(
                f"Not clearly above a random player on unseen levels: {join_words(weak)}.",
                Tone.CAUTION,
                f"Train longer (--steps, now {found.steps:,}), or log more levels.",
                code="levels-like-random",
            )
        )
    return notes


def _more(found: LevelResults) -> list[Note | Table]:
    levels, transitions = found.more_levels, found.more_transitions
    if levels is None or transitions is None:
        return [
            Note(
                "One level is logged: what more would bring cannot be seen in halves.",
                Tone.CAUTION,
                code="levels-one",
            )
        ]
    parts = found.shares
    rows: list[dict[str, Value]] = [
        {
            "cloning trained on": name,
            TRAINING: mean_return(part[TRAINING]),
            UNSEEN: mean_return(part[UNSEEN]),
        }
        for name, part in parts.items()
    ]
    return [
        Note(
            "With the number of transitions fixed, twice the levels changed the return on unseen "
            f"levels by {format_reading(levels, '+')}.",
            _tone(levels),
            code="levels-more-levels",
        ),
        Note(
            f"With the levels fixed, twice the transitions changed it by "
            f"{format_reading(transitions, '+')}.",
            _tone(transitions),
            code="levels-more-transitions",
        ),
        Table(
            rows=rows,
            caption="Behavioural cloning on all of the data and on halves; episodes and levels are "
            "drawn at random, anew for every seed. What another doubling would bring is not known, "
            "what the last one brought is.",
        ),
    ]


def _tone(reading: Reading) -> Tone:
    return Tone.GOOD if reading.low > 0 else Tone.NEUTRAL


def _method(found: LevelResults) -> list[str]:
    return [
        f"{found.transitions:,} transitions of {count_noun(len(found.levels.train), 'level')} "
        f"({count_noun(found.distinct, 'different layout')}) train every method for "
        f"{found.steps:,} steps with the same network, minibatches and "
        "seeds; nothing is selected on any level.",
        "Methods: " + "; ".join(f"{name}: {MEANINGS[name]}" for name in found.returns) + ".",
        "Every policy plays each level once and always takes the action that it holds for best: "
        "the same rule for all, also for those that are usually sampled.",
    ]


def _limits(found: LevelResults) -> list[str]:
    return [
        "Whether learning online would do better: no method here plays while it learns.",
        "Hyperparameters are the defaults; another choice could change the order of methods.",
        "Unseen levels come from the same generator as the logged ones: another kind of level may "
        "be harder.",
    ]


def machine_levels(found: LevelResults, environment: str) -> Mapping[str, Any]:
    """What `--json` prints."""
    return {
        "by": "level",
        "environment": environment,
        "transitions": found.transitions,
        "training_levels": len(found.levels.train),
        "distinct_layouts": found.distinct,
        "unseen_levels": len(found.levels.unseen),
        "dropped": found.dropped,
        "seeds": found.seeds,
        "steps": found.steps,
        "logged_return": found.logged,
        "random": {part: mean_return(values) for part, values in found.random.items()},
        "planner": None
        if found.planner is None
        else {part: float(values.mean()) for part, values in found.planner.items()},
        "methods": {
            name: {
                TRAINING: found.reading(name, TRAINING),
                UNSEEN: found.reading(name, UNSEEN),
                "gap": found.gap(name),
                "interquartile mean": found.quartile_mean(name),
            }
            for name in rank_methods(found)
        },
        "more_levels": found.more_levels,
        "more_transitions": found.more_transitions,
    }
