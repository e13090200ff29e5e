"""The findings of an audit as a document."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from unseen.audit import Findings
from unseen.audit.advice import advice, by_remedy, combined, helpful, limits, shared_metric, shown, unseen_of
from unseen.audit.findings import Example
from unseen.document import Block, Document, Note, Paragraph, Section, Table, Tone
from unseen.figure import Bars, Images, Points


def document(findings: Sequence[Findings]) -> Document:
    """One document over all held-out places."""
    parts: list[tuple[str, Callable[[Sequence[Findings]], list[Block]]]] = [
        ("What to do next", lambda f: list(advice(f))),
        ("How well it holds", _holding),
        ("Subgroups", _subgroups),
        ("Calibration", _calibration),
        ("What the model relies on, and what shifts", _features),
        ("The training data", _data),
        ("The worst errors and where they come from", _worst),
        ("Remedies tried", _remedies),
        ("The trained model", _model),
        ("What these data cannot tell", lambda f: [Note(text, Tone.NEUTRAL) for text in limits(f)]),
        ("How the data were treated", _treatment),
    ]
    sections = [Section(title, blocks) for title, make in parts if (blocks := make(findings))]
    first = findings[0]
    seconds = sum(sum(one.seconds.values()) for one in findings)
    facts = {
        "subject": f"{first.name} on {first.task}",
        "seeds": str(first.seeds),
        "seconds": f"{seconds:.1f}",
        "slowest parts": ", ".join(f"{k} {v:.1f} s" for k, v in _slowest(findings)),
    }
    return Document(title=f"Audit of {_title(findings)}", lead=_lead(findings), sections=sections, facts=facts)


def _title(findings: Sequence[Findings]) -> str:
    names = {one.name for one in findings}
    tasks = {one.task.split(":")[0] for one in findings}
    return f"{', '.join(sorted(names))} on {', '.join(sorted(tasks))}"


def _slowest(findings: Sequence[Findings]) -> list[tuple[str, float]]:
    total: dict[str, float] = {}
    for one in findings:
        for name, seconds in one.seconds.items():
            total[name] = total.get(name, 0.0) + seconds
    return sorted(total.items(), key=lambda item: -item[1])[:3]


def _lead(findings: Sequence[Findings]) -> str:
    metric = shared_metric(findings)
    rows = [(one.places.get(s, s), r) for one in findings for s in unseen_of(one) if (r := one.score(s, metric))]
    if not rows:
        return "No judged split could be scored; see the skipped parts below."
    worst = min(rows, key=lambda row: row[1].value)
    mean = sum(reading.value for _, reading in rows) / len(rows)
    gaps = [
        gap
        for one in findings
        for name, gap in one.gaps.items()
        if name.startswith(f"{metric}: ") and any(name.endswith(f"− {split}") for split in unseen_of(one))
    ]
    held = "at places it was not trained on" if findings[0].unseen else "on held-out examples of the same places"
    text = f"The {findings[0].name} reaches {metric} {mean:.2f} {held}"
    text += (
        f" (mean of {len(rows)}; lowest {shown(worst[1])} at {worst[0]})."
        if len(rows) > 1
        else f": {shown(rows[0][1])}."
    )
    if gaps:
        lost = sum(gap.low > 0 for gap in gaps)
        mean_gap = sum(gap.value for gap in gaps) / len(gaps)
        text += (
            f" That is {abs(mean_gap):.2f} {'below' if mean_gap > 0 else 'above'} what held-out examples of known places show;"
            f" the loss is beyond its interval at {lost} of {len(gaps)}."
        )
    table = {name: combined(o) for name, o in by_remedy(findings, metric).items()}
    helped = helpful(table)
    if helped:
        best = table[helped[0]]
        text += f" Of the remedies, {helped[0]} helps most: {best.value:+.3f} [{best.low:+.3f}, {best.high:+.3f}]."
    elif table:
        text += f" None of the {len(table)} remedies tried raises it beyond chance."
    return text


def _holding(findings: Sequence[Findings]) -> list[Block]:
    rows: list[dict[str, Any]] = []
    for one in findings:
        models = dict.fromkeys(score.model for score in one.scores)
        splits = dict.fromkeys(score.split for score in one.scores if not score.group)
        for split in splits:
            for model in models:
                found = {s.metric: s.reading for s in one.scores if (s.model, s.split, s.group) == (model, split, "")}
                if found:
                    new = split in one.unseen
                    place = one.places.get(split, "") if new else f"{split} (known places)"
                    row = {
                        "held out": _held_out(one),
                        "judged on": place or split,
                        "model": model,
                        "n": one.sizes[split],
                    }
                    rows.append({**row, **found})
    metric = shared_metric(findings)
    values, intervals = {}, {}
    for one in findings:
        for split in unseen_of(one):
            for model in dict.fromkeys(score.model for score in one.scores):
                reading = one.score(split, metric, model=model)
                if reading is not None:
                    key = f"{one.places.get(split, split)} · {model}"
                    values[key], intervals[key] = reading.value, (reading.low, reading.high)
    gaps: list[dict[str, Any]] = [
        {"held out": _held_out(one), "gap": name, "difference": gap}
        for one in findings
        for name, gap in one.gaps.items()
    ]
    columns = ["held out", "judged on", "model", "n"]
    if len(findings) == 1:
        rows = [{k: v for k, v in row.items() if k != "held out"} for row in rows]
        gaps = [{k: v for k, v in row.items() if k != "held out"} for row in gaps]
        columns = columns[1:]
    names = list(dict.fromkeys(key for row in rows for key in row if key not in columns))
    return [
        Bars(title=f"{metric} at unseen places", values=values, intervals=intervals, label=metric),
        Table(
            rows=rows,
            columns=[*columns, *names],
            caption="Scores with 95 % intervals over examples and training runs (comparison models: over examples).",
        ),
        Table(rows=gaps, caption="Generalization gaps (positive: worse where the model was not fitted)."),
    ]


def _held_out(one: Findings) -> str:
    return ", ".join(one.places.get(split, split) for split in one.unseen) or "random part"


def _subgroups(findings: Sequence[Findings]) -> list[Block]:
    metric = shared_metric(findings)
    rows: list[dict[str, Any]] = []
    for one in findings:
        for split in unseen_of(one):
            for score in one.scores:
                if score.split == split and score.group and score.metric == one.score_name:
                    more = one.score(split, "AUC", group=score.group, level=score.level)
                    row = {"place": one.places.get(split, split), "group": score.group, "level": score.level}
                    rows.append({**row, "n": score.reading.n, one.score_name: score.reading, "AUC": more})
    if not rows:
        return []
    if all(row["AUC"] is None for row in rows):
        rows = [{k: v for k, v in row.items() if k != "AUC"} for row in rows]
    said = [w for one in findings for w in one.warnings]
    blocks: list[Block] = [Table(rows=rows, caption="Scores by subgroup at unseen places.")]
    if metric == "AUC":
        blocks.append(Paragraph("AUC is missing where a subgroup holds only one class."))
    return blocks + [Note(text, Tone.CAUTION) for text in dict.fromkeys(said)]


def _calibration(findings: Sequence[Findings]) -> list[Block]:
    blocks: list[Block] = []
    groups = {}
    rows: list[dict[str, Any]] = []
    for one in findings:
        for name, curve in one.curves.items():
            if name in unseen_of(one):
                groups[one.places.get(name, name)] = list(curve)
        for name, reading in one.readings.items():
            if name.startswith("calibration "):
                what, _, split = name.partition(": ")
                place = one.places.get(split, split) if split in one.unseen else f"{split} (without {_held_out(one)})"
                rows.append({"judged on": place, "quantity": what, "value": reading})
    if groups:
        blocks.append(
            Points(
                title="Reliability at unseen places",
                groups=groups,
                x_label="predicted probability",
                y_label="observed share",
                diagonal=True,
            )
        )
    if rows:
        wide: dict[str, dict[str, Any]] = {}
        for row in rows:
            wide.setdefault(row["judged on"], {"judged on": row["judged on"]})[row["quantity"]] = row["value"]
        blocks.append(Table(rows=list(wide.values()), caption="Calibration of the predicted probabilities."))
    return blocks


def _features(findings: Sequence[Findings]) -> list[Block]:
    rows: list[dict[str, Any]] = []
    points: dict[str, list[tuple[float, float]]] = {"stable": [], "shifted": []}
    for one in findings:
        for feature in sorted(one.features, key=lambda f: -f.reliance.value):
            place = one.places.get(feature.split, feature.split)
            sign = "shifted" if feature.moved else "stable"
            rows.append(
                {
                    "place": place,
                    "feature": feature.name,
                    "reliance": feature.reliance,
                    "shift": feature.shift,
                    "": sign,
                }
            )
            points[sign].append((feature.shift, feature.reliance.value))
    if not rows:
        return []
    risky = [r for r in rows if r[""] == "shifted" and r["reliance"].low > 0]
    risky = sorted(risky, key=lambda r: -r["reliance"].value)[:5]
    blocks: list[Block] = [
        Note(
            f"{row['feature']} matters ({shown(row['reliance'])}) and differs at {row['place']} (distance {row['shift']:.2f}).",
            Tone.CAUTION,
        )
        for row in risky
    ]
    blocks.append(
        Points(
            title="Reliance against shift (upper right: risky)",
            groups={name: p for name, p in points.items() if p},
            x_label="distance between fitted and judged distribution",
            y_label="drop of score when shuffled",
        )
    )
    blocks.append(
        Table(
            rows=rows,
            caption="Reliance: drop of the score when the feature is shuffled among the judged examples. "
            "Shift: Kolmogorov–Smirnov or total-variation distance to the training data; "
            "marked where significant at a false discovery rate of 5 %.",
        )
    )
    return blocks


def _examples(examples: Sequence[Example], caption: str, value: str) -> list[Block]:
    pictures = [e for e in examples if isinstance(e.shown, Tensor)]
    if pictures:
        captions = [f"{e.split} {e.index if e.row is None else e.row} · {e.label} · {e.value:.2f}" for e in pictures]
        return [Images(title=caption, pixels=[e.shown.tolist() for e in pictures], captions=captions)]  # type: ignore[union-attr]
    rows: list[dict[str, Any]] = [
        {"row": e.index if e.row is None else e.row, "label": e.label, value: e.value, "example": str(e.shown)}
        for e in examples
    ]
    return [Table(rows=rows, caption=caption)] if rows else []


def _data(findings: Sequence[Findings]) -> list[Block]:
    blocks: list[Block] = []
    rows: list[dict[str, Any]] = []
    for one in findings:
        row: dict[str, Any] = {"fitted without": _held_out(one), "n": one.sizes.get("train", 0)}
        row |= {k: v for k, v in one.readings.items() if k.startswith("coherence")}
        rows.append(row)
    if any(len(row) > 2 for row in rows):
        blocks.append(
            Table(
                rows=rows,
                caption="Coherence of per-example gradients, α = ‖mean gradient‖² / mean ‖gradient‖² (1: all agree). "
                "Classes with low coherence are learned from few shared patterns.",
            )
        )
    one = findings[0]
    without = f" (trained without {_held_out(one)})" if len(findings) > 1 else ""
    blocks += _examples(one.suspects, f"Suspected label errors{without}: most suspicious first", "suspicion")
    blocks += _examples(one.conflicting, f"Examples in conflict with their class{without}", "agreement")
    shared: list[dict[str, Any]] = [
        {
            "fitted": o.fitted,
            "judged": one.places.get(o.judged, o.judged) if o.judged in one.unseen else o.judged,
            "exact": o.exact,
            "near": o.near,
            "of": o.n,
        }
        for one in findings
        for o in one.overlaps
    ]
    if shared:
        blocks.append(
            Table(rows=shared, caption="Judged examples that also stand, exactly or nearly, in the fitted data.")
        )
    return blocks


def _worst(findings: Sequence[Findings]) -> list[Block]:
    blocks: list[Block] = []
    for one in findings[:4]:
        place = one.places.get(one.worst[0].query.split, one.worst[0].query.split) if one.worst else ""
        for k, error in enumerate(one.worst[: 5 if len(findings) == 1 else 2]):
            title = f"{place}, error {k + 1}: label {error.query.label}, loss {error.query.value:.2f}"
            marked = [
                (error.query, "error"),
                *((e, "helped") for e in error.helpful),
                *((e, "harmed") for e in error.harmful),
            ]
            if isinstance(error.query.shown, Tensor):
                captions = [f"{role} · {e.label} · {e.value:.2f}" for e, role in marked]
                pixels = [e.shown.tolist() for e, _ in marked if isinstance(e.shown, Tensor)]
                blocks.append(Images(title=title, pixels=pixels, captions=captions))
            else:
                lines: list[dict[str, Any]] = [
                    {
                        "role": role,
                        "row": e.index if e.row is None else e.row,
                        "label": e.label,
                        "value": e.value,
                        "example": str(e.shown),
                    }
                    for e, role in marked
                ]
                blocks.append(Table(rows=lines, caption=title))
    if blocks:
        blocks.insert(
            0,
            Paragraph(
                "Training examples are ranked by the cosine of their gradient with the error's (gradient similarity at the final "
                "weights, no influence function). Helped: their step lowers the loss of the error; harmed: raises it."
            ),
        )
    return blocks


def _remedies(findings: Sequence[Findings]) -> list[Block]:
    metric = shared_metric(findings)
    table = by_remedy(findings, metric)
    if not table:
        return []
    rows: list[dict[str, Any]] = []
    for name, outcomes in table.items():
        row: dict[str, Any] = {"remedy": name}
        for one in findings:
            for split in unseen_of(one):
                found = [o for o in one.outcomes if (o.remedy, o.metric, o.split) == (name, metric, split)]
                row[one.places.get(split, split)] = found[0].change if found else None
        rows.append({**row, "mean": combined(outcomes)})
    means = {name: combined(outcomes) for name, outcomes in table.items()}
    notes = dict.fromkeys(f"{o.remedy}: {o.note}" for outcomes in table.values() for o in outcomes if o.note)
    return [
        Bars(
            title=f"Change of {metric} at unseen places (mean)",
            values={name: r.value for name, r in means.items()},
            intervals={name: (r.low, r.high) for name, r in means.items()},
            label=f"paired change of {metric}",
        ),
        Table(
            rows=rows,
            caption=f"Paired change of {metric} against the model as it is: same seeds, initialisation, data order and steps.",
            footnotes=list(notes),
        ),
    ]


def _model(findings: Sequence[Findings]) -> list[Block]:
    rows: list[dict[str, Any]] = []
    for one in findings:
        plain = {k: v for k, v in one.readings.items() if not k.startswith(("coherence", "calibration"))}
        if plain:
            rows.append({"fitted without": _held_out(one), **plain})
    return [Table(rows=rows, caption="Sharpness and other measures of the trained model.")] if rows else []


def _treatment(findings: Sequence[Findings]) -> list[Block]:
    said = dict.fromkeys(text for one in findings for text in one.decisions)
    blocks: list[Block] = [Paragraph(text) for text in said]
    skipped = dict.fromkeys((name, why) for one in findings for name, why in one.skipped.items())
    return blocks + [Note(f"Skipped: {name}.", Tone.CAUTION, why) for name, why in skipped]
