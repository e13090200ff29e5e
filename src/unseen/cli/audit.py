"""`unseen audit`: how well a model holds on data it has not seen, why, and what helps."""

import sys
from collections.abc import Sequence

import unseen
from unseen.cli.arguments import OUTPUT, Arguments
from unseen.cli.executor_options import add_executor, chosen_executor
from unseen.cli.subject_options import (
    DATA,
    TEXTS,
    TRAINING,
    add_data,
    add_model,
    add_output,
    add_text,
    add_training,
    present,
    shared_options,
    subject_and_table,
    text_options,
)


def parser() -> Arguments:
    p = Arguments(
        "unseen audit",
        "How well does a model hold on data it has not seen, why, and what helps?",
        "Without a subject: the embedded UCI heart-disease data, four hospitals, each held out in "
        "turn.\n"
        "Exit codes: 0 fine, 1 the bar is missed or a finding of --fail-on is raised, 2 usage or "
        "input error, 3 undecided.",
        groups=(DATA, TRAINING, TEXTS),
    )
    add_data(p)
    p.option(
        DATA,
        "--block",
        metavar="COLUMN",
        help="rows that hang together (household, admitted:month): intervals draw whole blocks",
    )
    p.option(
        DATA,
        "--example",
        metavar="NAME",
        help="embedded data instead: heart (default), bikes (rentals by year), air (twelve "
        "stations)",
    )
    p.option(
        DATA,
        "--against",
        metavar="FILE",
        help="table of a new site: trained on the first table, evaluated there; without labels "
        "what to expect there",
    )
    p.option(
        DATA,
        "--positive",
        metavar="CLASS",
        help="class that a decision calls: sensitivity, specificity, predictive value and net "
        "benefit per site (default: the second of two)",
    )
    p.option(
        DATA,
        "--threshold",
        type=float,
        metavar="P",
        help="probability above which it is called (default: chosen on known sites)",
    )
    p.option(
        TRAINING,
        "--seeds",
        type=int,
        default=3,
        help="models trained per held-out site (default 3)",
    )
    add_training(p)
    add_model(p)
    add_text(p)
    p.option(
        TRAINING,
        "--jobs",
        "--max-jobs",
        type=int,
        default=1,
        help="held-out sites computed at once, by processes or jobs of a cluster (default 1)",
    )
    add_executor(p, TRAINING, "the held-out sites", "site")
    p.option(TRAINING, "--no-remedies", action="store_true", help="skip the training of remedies")
    p.option(
        OUTPUT,
        "--bar",
        type=float,
        help="exit 1 if the score at unseen sites is worse than this value",
    )
    p.option(
        OUTPUT,
        "--margin",
        type=float,
        help="how much worse than at known sites still counts as holding (default 0.05; of an "
        "error in the target's unit a tenth)",
    )
    p.option(
        OUTPUT,
        "--fail-on",
        default="",
        metavar="CODES",
        help="exit 1 if one of these findings is raised, e.g. U101,U202 (docs/findings.md)",
    )
    p.option(OUTPUT, "--card", metavar="PATH.md", help="also write a model card")
    p.option(OUTPUT, "--ignore", default="", metavar="CODES", help="mute these findings")
    add_output(p, "unseen-report.html")
    return p


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit code (0 fine, 1 bar missed, 3 bar undecided)."""
    options = parser().parse_args(argv)
    from unseen.questions.audit.bar import compare_with_bar  # after parsing: it imports torch
    from unseen.questions.audit.codes import alarms, parse_codes, refuse_muted

    fatal = parse_codes(options.fail_on)
    refuse_muted(fatal, parse_codes(options.ignore))
    found = unseen.audit(
        *subject_and_table(options),
        mode=options.mode,
        predictions=options.predictions,
        against=options.against,
        estimator=options.estimator,
        seeds=options.seeds,
        margin=options.margin,
        positive=options.positive,
        threshold=options.threshold,
        remedies={} if options.no_remedies else None,
        ignore=options.ignore,
        card=options.card,
        example=options.example,
        jobs=options.jobs,
        executor=chosen_executor(options),
        block=options.block,
        **(text_options(options) | shared_options(options)),
    )
    present(found, options)
    if raised := alarms(found.document, fatal):
        print(f"raised: {', '.join(raised)}", file=sys.stderr)
    code = 0
    if options.bar is not None:
        answer = compare_with_bar(found.results, options.bar)
        print(answer, file=sys.stderr)
        code = {True: 0, False: 1, None: 3}[answer.is_met]
    return 1 if raised else code
