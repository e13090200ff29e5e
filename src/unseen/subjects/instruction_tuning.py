"""A causal language model that is fine-tuned on instructions and writes answers to them."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from unseen.engine.batches import Columns
from unseen.engine.decode import greedy
from unseen.engine.loop import Budget
from unseen.engine.responses import Exchange, ResponseData, encode_exchanges
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.methods.response_finetune import LoRA, ResponseFinetune, keep_fit
from unseen.models.pretrained import CausalLM
from unseen.objectives import exact_match
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.instructions import EncodedPrompt, Encoding, Instance, InstructionTask

LINE_END = "\n"
"""What closes an answer of a model without an end token."""


@dataclass(frozen=True)
class InstructionTuning:
    """How long prompts and answers may be, and how the model is trained."""

    budget: Budget = field(
        default_factory=lambda: Budget(steps=100, batch_size=8, lr=3e-5, clip=1.0)
    )
    lora: LoRA | None = None
    length: int = 384
    """Tokens of prompt and answer."""
    response: int = 48
    """Tokens of an answer at most."""

    def __post_init__(self) -> None:
        if not 1 <= self.response < self.length:
            raise InvalidConfig(
                f"Answers of {self.response} tokens in {self.length} with their prompts.",
                why="a prompt needs some of them.",
                fix="give a length well above that of answers.",
            )

    def prompt(
        self,
        model: CausalLM,
        task: InstructionTask,
        text: str,
        encoding: Encoding,
        instruction: InstructionTask | None = None,
    ) -> EncodedPrompt:
        """What the model reads, in its chat template where it has one."""
        wrap = chat_template(model)
        most = self.length_for(model) - self.response

        def size(raw: str) -> int:
            return len(model.start) + len(model.encode(wrap(raw)))

        found = encoding.prompt(task, text, size=size, most=most, instruction=instruction)
        if model.context is not None and size(found.text) > model.context - self.response:
            shown = task if instruction is None else instruction
            raise InvalidData(
                f"The instruction of the task `{shown.name}` is longer than the "
                f"{model.context - self.response} tokens that the model reads before an answer.",
                why="inputs and examples are shortened, instructions never.",
                fix="write a shorter instruction, or take a model that reads more.",
            )
        return found._replace(text=wrap(found.text))

    def length_for(self, model: CausalLM) -> int:
        """Tokens of prompt and answer, no more than the model has positions for."""
        length = min(self.length, model.context or self.length)
        if self.response >= length:
            raise InvalidConfig(
                f"Answers of {self.response} tokens, of a model that reads {length} with prompts.",
                why="a prompt needs some of them.",
                fix="give fewer: --answer-tokens.",
            )
        return length

    def exchange(self, model: CausalLM, prompt: EncodedPrompt, one: Instance) -> Exchange:
        """The prompt with the first right output."""
        space = "" if chat_template(model) is not plain_text else " "
        end = "" if end_token(model) is not None else LINE_END
        return Exchange(prompt.text, space + one.outputs[0] + end)

    def encode(self, model: CausalLM, exchanges: Sequence[Exchange]) -> ResponseData:
        return encode_exchanges(
            exchanges, model.encode, self.length_for(model), end_token(model), start=model.start
        )

    def fit(
        self, model: CausalLM, data: Mapping[str, Columns], lab: Lab, budget: Budget | None = None
    ) -> CausalLM:
        """A copy of the model, trained on a minibatch of every part in every step; kept."""
        splits = {name: Split(part, Use.TRAIN, name) for name, part in data.items()}
        task = Task(name="instructions", axis=Axis.TASK, splits=splits, objective=exact_match)
        method = ResponseFinetune(self.budget if budget is None else budget, self.lora)
        trained = keep_fit(method, copy.deepcopy(model), task, lab).model
        assert isinstance(trained, CausalLM)
        return trained

    def write(self, model: CausalLM, prompts: Sequence[EncodedPrompt], batch: int = 4) -> list[str]:
        """The model's most likely answers, token by token."""
        tokens = [[*model.start, *model.encode(one.text)] for one in prompts]
        # prompts of like length together: less padding; the answers are the same
        order = sorted(range(len(tokens)), key=lambda k: len(tokens[k]))
        found = greedy(
            model, [tokens[k] for k in order], self.response, end_token(model), batch_size=batch
        )
        texts = dict(zip(order, (model.tokenizer.decode(row) for row in found), strict=True))
        ends = end_token(model) is not None
        return [
            text.strip() if ends else text.split(LINE_END)[0].strip()
            for _, text in sorted(texts.items())
        ]


def end_token(model: CausalLM) -> int | None:
    """The number of the token that closes a text."""
    return getattr(model.tokenizer, "eos_token_id", None)


def plain_text(text: str) -> str:
    return text


def chat_template(model: CausalLM) -> Callable[[str], str]:
    """Puts a text into the model's chat template; a model without one reads it as it is."""
    tokenizer = model.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        return plain_text

    def wrap(text: str) -> str:
        message = [{"role": "user", "content": text}]
        return str(
            tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        )

    return wrap
