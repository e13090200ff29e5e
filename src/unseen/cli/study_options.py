"""The options of `run`, `report` and `check`, apart from what they do, so that their help need not
wait for torch.
"""

from pathlib import Path

from unseen.cli.arguments import OUTPUT, Arguments, add_tracker
from unseen.cli.executor_options import add_executor

STUDY, COMPUTING = "study", "computing"
SCALES = ("smoke", "laptop", "paper")


def run_parser() -> Arguments:
    """The options of `unseen run`."""
    p = Arguments(
        "unseen run",
        "Tests the claims of a study: computes the cells that are not stored yet, judges, reports.",
        "unseen run NAME --scale smoke    one study; unseen run NAME --help lists its own flags\n"
        "unseen run --all --jobs 2        all of them; goes on where it was stopped\n\n"
        "Exit codes: 0 fine, 1 a claim refuted, 2 usage error or failed cell, 3 undecided only, "
        "130 interrupted.",
        add_help=False,
        groups=(STUDY, COMPUTING),
    )
    _add_study(p)
    p.option(
        COMPUTING,
        "--jobs",
        "--max-jobs",
        type=int,
        default=1,
        help="cells computed at once, by processes or jobs of a cluster (default 1)",
    )
    add_executor(p, COMPUTING, "cells", "cell")
    p.option(
        COMPUTING,
        "--device",
        default="cpu",
        help="where cells compute: cpu, cuda, cuda:1, mps (default cpu)",
    )
    p.option(
        COMPUTING, "--fail-fast", action="store_true", help="stop at the first cell that fails"
    )
    p.option(
        COMPUTING,
        "--retry-failed",
        action="store_true",
        help="compute cells again that failed earlier",
    )
    p.option(COMPUTING, "--fresh", action="store_true", help="compute every cell again")
    p.option(
        COMPUTING,
        "--doublings",
        type=int,
        choices=(0, 1, 2),
        default=2,
        help="how often the seeds of a claim that ends near its margin are doubled (default 2)",
    )
    p.option(OUTPUT, "--ledger", action="store_true", help="write results/NAME.json")
    p.option(
        OUTPUT,
        "--report",
        type=Path,
        help="file to write, .html or .md (default reports/NAME/SCALE.html)",
    )
    p.option(OUTPUT, "--no-report", action="store_true", help="write no report")
    add_tracker(p)
    return p


def report_parser() -> Arguments:
    """The options of `unseen report`."""
    p = Arguments(
        "unseen report",
        "Writes the report of stored results again; computes nothing.",
        "Flags of the study's own configuration follow, as for `unseen run`. Exit codes as for "
        "`unseen run`.",
        add_help=False,
        groups=(STUDY,),
    )
    _add_study(p)
    p.option(
        OUTPUT,
        "--report",
        type=Path,
        help="file to write, .html or .md (default reports/NAME/SCALE.html)",
    )
    p.option(
        STUDY,
        "--kept",
        action="store_true",
        help="from the rows kept with the ledger instead of the store",
    )
    p.option(
        OUTPUT,
        "--rows",
        type=Path,
        help="also write the rows: .parquet (extra `parquet`), .csv or .json",
    )
    return p


def _add_study(p: Arguments) -> None:
    """What `run` and `report` share: which study, which scale, where results are kept."""
    p.option(STUDY, "name", nargs="?", help="the study (`unseen list studies`)")
    p.option(
        STUDY,
        "--all",
        action="store_true",
        help="all studies, one after another, and one page about them (--report: .html, .md or "
        ".json; default reports/all/SCALE.html)",
    )
    p.option(
        STUDY, "--scale", choices=SCALES, default="laptop", help="amount of work (default laptop)"
    )
    p.option(
        STUDY,
        "--results",
        type=Path,
        default=Path("results"),
        help="folder of the ledgers (default results)",
    )
    p.option(
        STUDY,
        "--home",
        type=Path,
        help="where results are kept (default: UNSEEN_HOME or the user's cache)",
    )
    p.option(
        STUDY,
        "--first-seed",
        type=int,
        default=0,
        metavar="N",
        help="seeds start at N instead of 0, where nobody has looked yet",
    )
    p.option(
        OUTPUT,
        "--help",
        "-h",
        action="store_true",
        help="this text; after NAME also the study's own flags",
    )


def check_parser() -> Arguments:
    """The options of `unseen check`."""
    p = Arguments(
        "unseen check",
        "Whether the verdicts in results/ still hold for this code.",
        "Exit codes: 0 all hold, 1 something does not hold, 2 usage or input error, 3 something is "
        "stale or missing.",
        groups=(STUDY, COMPUTING),
    )
    p.option(STUDY, "names", nargs="*", help="studies (default: all with a ledger file)")
    p.option(
        STUDY,
        "--results",
        type=Path,
        default=Path("results"),
        help="folder of the ledger (default results)",
    )
    p.option(STUDY, "--home", type=Path, help="where results are kept")
    p.option(
        STUDY,
        "--smoke",
        action="store_true",
        help="settle stale ledgers by their smoke rows, where possible",
    )
    p.option(
        COMPUTING,
        "--one-seed",
        action="store_true",
        help="settle stale ledgers by one seed of every arm of their own scale",
    )
    p.option(
        COMPUTING,
        "--fresh",
        action="store_true",
        help="run them again with seeds nobody used: how many effects lie in the recorded "
        "intervals (about 83 %% is right)",
    )
    p.repeatable(COMPUTING, "--claims", "only claims that contain these words", metavar="WORDS")
    p.option(
        COMPUTING,
        "--seconds",
        type=float,
        metavar="N",
        help="stop after so many; the same command goes on",
    )
    p.option(
        COMPUTING,
        "--first-seed",
        type=int,
        metavar="N",
        help="where fresh seeds start (default: 2000, or beyond those of the ledger)",
    )
    p.option(
        OUTPUT,
        "--table",
        type=Path,
        metavar="PAGE",
        help="rewrite the table of all studies in this page (README.md)",
    )
    p.option(
        OUTPUT,
        "--rejudge",
        action="store_true",
        help="rewrite the claims of each ledger from its kept rows",
    )
    return p
