"""A language model and a corpus as a subject: the model as it is, on windows of the corpus."""

from typing import NoReturn

from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.models.pretrained import CausalLM
from unseen.questions.influence.of_text import refuse_long_windows
from unseen.subjects.subject import Subject
from unseen.tasks.text_corpus import TextCorpus

WINDOWS = 64
"""Windows that are read where nothing else is said: minutes of one core for 135 million weights."""


def text_subject(model: CausalLM, name: str, corpus: TextCorpus, lab: Lab) -> Subject:
    """The windows stand for what the model was trained on; none is held out."""
    refuse_long_windows(corpus.length, model)
    task = corpus.build(lab)
    return Subject(
        task=task,
        model=_refuse_training,
        trained=model,
        name=name,
        decisions=[
            f"The corpus was cut into windows of {corpus.length} tokens"
            + (f", of which the first {corpus.most:,} were read." if corpus.most else "."),
            "Whether the model was trained on them is not known: nothing is held out here.",
        ],
    )


def _refuse_training() -> NoReturn:
    raise InvalidConfig(
        "The language model is not trained here.",
        why="it is measured as it is.",
        fix="leave out what trains it again.",
    )
