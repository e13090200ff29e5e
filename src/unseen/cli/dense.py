"""`unseen dense`: a new dense task from a few labelled images."""

from collections.abc import Sequence
from pathlib import Path

from unseen.cli.arguments import OUTPUT, Arguments
from unseen.cli.subject_options import store_or_warn
from unseen.errors import InvalidConfig

INPUT, LEARNING = "images and labels", "learning"


def parser() -> Arguments:
    p = Arguments(
        "unseen dense",
        "Learn masks, maps or key points from a few labelled images: errors against baselines, and "
        "predictions for the other images.",
        "unseen dense images/ labels/ --shots 10\n"
        "unseen dense images/ labels/ --shots 10 --kind classes --adapt bias-and-decoder\n\n"
        "Pairs are found by file name; labels are PNG, .npy or .csv files.\n"
        "Key points are CSV files with the line name,x,y first. The shipped network has only\n"
        "seen drawn scenes; --model takes one of your own (safetensors).",
        groups=(INPUT, LEARNING),
    )
    p.add_argument("images", help="folder of images")
    p.add_argument("labels", help="folder of labels with the same file names")
    p.option(INPUT, "--kind", choices=("mask", "classes", "map", "points"),
             help="what labels hold (default: seen from the files)")  # fmt: skip
    p.option(INPUT, "--second", metavar="FOLDER",
             help="second image of every input: a stereo view, an exemplar mark")  # fmt: skip
    p.option(INPUT, "--side", type=int, default=72,
             help="pixels of the shorter side that all methods work at (default 72)")  # fmt: skip
    p.option(INPUT, "--unknown", choices=("nan",), default="",
             help="NaN in .npy labels are pixels without a label")  # fmt: skip
    p.option(LEARNING, "--shots", type=int, default=10,
             help="labelled images to learn from (default 10)")  # fmt: skip
    p.option(LEARNING, "--model", metavar="FILE",
             help="weights of token matching, safetensors (default: the shipped ones)")  # fmt: skip
    p.option(LEARNING, "--adapt", choices=("none", "bias", "bias-and-decoder", "all"),
             default="bias", help="what a new task trains (default bias)")  # fmt: skip
    p.option(LEARNING, "--steps", type=int, default=60, help="of adaptation (default 60)")
    p.option(LEARNING, "--folds", type=int, default=5,
             help="blocks of neighbours by name, each held out in turn (default 5)")  # fmt: skip
    p.option(LEARNING, "--most", type=int, default=40, metavar="N",
             help="evaluate on at most N labelled images (default 40)")  # fmt: skip
    p.option(LEARNING, "--curve", metavar="N,N", default="1,5,10,20",
             help="labelled images along the curve, 0: none (default 1,5,10,20)")  # fmt: skip
    p.option(LEARNING, "--seed", type=int, default=0, help="of all random numbers (default 0)")
    p.option(OUTPUT, "--predictions", metavar="FOLDER", default="predictions",
             help="where PNGs of the images without a label go (default predictions)")  # fmt: skip
    p.option(OUTPUT, "--report", default="unseen-dense.html",
             help=".html, .md, .json or .tex (default unseen-dense.html)")  # fmt: skip
    p.option(OUTPUT, "--quiet", action="store_true", help="no progress")
    return p


def numbers_of_shots(text: str) -> tuple[int, ...]:
    """ "1,5,10"; "0" is none."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [-1]
    if min(numbers) < 0:
        raise InvalidConfig(
            f"--curve {text}.",
            why="it names numbers of labelled images.",
            fix="write --curve 1,5,10,20, or --curve 0 for none.",
        )
    return tuple(sorted({number for number in numbers if number}))


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    if options.side < 16:
        raise InvalidConfig(
            f"--side {options.side}.", why="images are cut into tiles.", fix="72 is usual."
        )
    # a help page must not wait for torch
    from unseen.lab import Lab
    from unseen.methods.few_shot_tuning import Adapt
    from unseen.questions.answer import check_report_path
    from unseen.questions.dense import few_shot_answer, write_predictions
    from unseen.questions.dense.inputs import Kind, read_folders
    from unseen.questions.dense.job import Setting
    from unseen.runs.progress import watcher

    check_report_path(options.report)
    setting = Setting(
        shots=options.shots,
        folds=options.folds,
        adapt=Adapt(options.adapt.replace("-", " ")),
        steps=options.steps,
        most=options.most,
        curve=numbers_of_shots(options.curve),
        seed=options.seed,
    )
    data = read_folders(
        Path(options.images),
        Path(options.labels),
        kind=None if options.kind is None else Kind(options.kind),
        side=options.side,
        second=None if options.second is None else Path(options.second),
        unknown=options.unknown,
    )
    watch = watcher(shown=not options.quiet)
    lab = Lab(options.seed, sink=watch.sink).child("dense")
    watch.begin("dense", setting.folds, 0, "folds")
    try:
        answer = few_shot_answer(
            data,
            setting,
            lab,
            watch.on_finish,
            model=None if options.model is None else Path(options.model),
            source=f"{options.images}, {options.labels}",
        )
    finally:
        watch.end()
    answer.report(options.report)
    written = (
        write_predictions(answer.results, Path(options.predictions)) if data.unlabelled else []
    )
    if options.json:
        print(answer.json(report=str(options.report)))
    else:
        answer.show()
        if written:
            print(f"{len(written)} predictions: {options.predictions}")
        print(f"report: {options.report}")
    store_or_warn(options.question, answer.document, answer.machine)
    return 0
