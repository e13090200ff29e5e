"""`unseen push`: a stored answer to a repository of the Hugging Face hub, as card, numbers and
page.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unseen.cli.arguments import OUTPUT, Arguments

ANSWER, REPOSITORY = "answer", "repository"


def parser() -> Arguments:
    p = Arguments(
        "unseen push",
        "Puts a stored answer into a model or dataset repository of the Hugging Face hub.",
        "unseen push unseen-report.html --to me/heart --dry-run    writes the folder only\n\n"
        "A repository that is missing is made, private. Log in first: hf auth login.",
        groups=(ANSWER, REPOSITORY),
    )
    p.option(
        ANSWER,
        "answer",
        nargs="?",
        help="report (.html) that a command wrote, or the key of a stored answer (default: the "
        "newest)",
    )
    p.option(
        ANSWER,
        "--home",
        type=Path,
        help="where answers are stored (default: UNSEEN_HOME or the user's cache)",
    )
    p.option(REPOSITORY, "--to", required=True, metavar="OWNER/NAME", help="the repository")
    p.option(
        REPOSITORY, "--dataset", action="store_true", help="a dataset repository (default: model)"
    )
    p.option(
        REPOSITORY,
        "--into",
        default="",
        metavar="FOLDER",
        help="folder in the repository (default: its root, as its card)",
    )
    p.option(OUTPUT, "--dry-run", action="store_true", help="write the folder and upload nothing")
    p.option(
        OUTPUT,
        "--folder",
        type=Path,
        default=Path("unseen-push"),
        help="folder that is written and uploaded (default unseen-push)",
    )
    return p


def main(argv: Sequence[str]) -> int:
    """Writes the folder, and uploads it."""
    options = parser().parse_args(argv)
    # after parsing: torch is imported with the questions
    from unseen.questions.publishing import find_answer, write_folder
    from unseen.runs.answers import Answers
    from unseen.runs.hub import check_library, check_repository, upload
    from unseen.runs.store import home

    to = check_repository(options.to)
    if not options.dry_run:
        check_library()
    answers = Answers(home(options.home))
    answer = find_answer(answers, options.answer)
    files = write_folder(answers, answer.key, options.folder, options.dataset)
    found: dict[str, Any] = {"answer": answer.key, "title": answer.title}
    found["files"] = [str(path) for path in files]
    if not options.dry_run:
        found["address"] = upload(options.folder, to, options.dataset, options.into)
    if options.json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        print(f"{answer.title}: {', '.join(found['files'])}")
        print(f"uploaded: {found['address']}" if "address" in found else f"not uploaded to {to}")
    return 0
