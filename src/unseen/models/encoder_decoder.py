"""Encoder–decoders of transformers behind the interface of a decoder: `model(tokens) -> logits`.

A row is `source <start> target`, with the token that starts the decoder between what is given and
what has to be written. The encoder reads what stands before it, the decoder reads it and the rest,
so losses, decoding and likelihoods treat source and target as they treat prompt and answer of a
causal language model.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen.engine.token_pairs import END, PAD, TO
from unseen.errors import InvalidConfig, InvalidData, MissingExtra, UnsupportedLayer
from unseen.models.pretrained import (
    refuse_broken,
    refuse_incomplete,
    refuse_no_model,
    refuse_no_tokenizer,
    refuse_other_vocabulary,
    refuse_pickles,
)
from unseen.models.t5_steps import StepCache, step, takes_steps

RELATIVE = ("t5", "mt5", "switch_transformers")
"""Kinds of models whose decoder knows distances only: padding before a target shifts nothing."""


@dataclass(frozen=True)
class SourceTarget:
    """Rows divided into what the encoder and what the decoder reads, each filled up on one side."""

    source: Int[Tensor, "b source"]
    source_real: Bool[Tensor, "b source"]
    target: Int[Tensor, "b target"]
    """Begins with the start token."""
    target_real: Bool[Tensor, "b target"]
    is_target: Bool[Tensor, "b s"]
    """Where the tokens of `target` stand in the joined rows."""


@dataclass
class EncodedSource:
    """What reading goes on from."""

    hidden: Float[Tensor, "b source d"]
    real: Bool[Tensor, "b source"]
    target_real: Bool[Tensor, "b target"]
    """Of the tokens that the decoder has read."""
    cache: Any


class EncoderDecoder(nn.Module):
    """A transformers model with `generate` for encoder–decoders (T5, BART, …) on joined rows.

    Logits at the source's tokens are 0: nothing is predicted there.
    """

    def __init__(
        self,
        model: Any,
        start: int | None = None,
        closing: int | None = None,
        tokenizer: Any = None,
    ) -> None:
        """`start`: the decoder's first token, which divides a row (None: as configured). `closing`:
        appended to every source, as the end token that T5 and BART were trained with.
        """
        super().__init__()
        self.model, self.tokenizer, self.closing = model, tokenizer, closing
        if start is None:
            start = getattr(model.config, "decoder_start_token_id", None)
        if start is None:
            raise InvalidConfig(
                f"{type(model).__name__} names no token that starts its decoder.",
                why="it divides what is given from what has to be written.",
                fix="EncoderDecoder(model, start=0), as the model was trained.",
            )
        self.divider = start

    def forward(
        self, tokens: Int[Tensor, "b s"], real: Bool[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b s v"]:
        """Logits at every position; `real` marks what is no padding (only needed for padding that
        stands before a source).
        """
        rows = self.divide(tokens, real)
        return self._join(self.decode(rows), rows)

    def decode(self, rows: SourceTarget) -> Float[Tensor, "b target v"]:
        """Logits of the token behind each token of the target."""
        return self.model(
            input_ids=rows.source,
            attention_mask=rows.source_real.long(),
            decoder_input_ids=rows.target,
            decoder_attention_mask=rows.target_real.long(),
            use_cache=False,
        ).logits

    def logits_at(
        self, tokens: Int[Tensor, "b s"], where: Bool[Tensor, "b s"]
    ) -> Float[Tensor, "n v"]:
        """The logits at the marked positions of the target, row by row."""
        rows = self.divide(tokens)
        asked = torch.zeros_like(rows.target_real)
        asked[rows.target_real] = where[rows.is_target]
        return self.decode(rows)[asked]

    def divide(
        self,
        tokens: Int[Tensor, "b s"],
        real: Bool[Tensor, "b s"] | None = None,
        padded_left: bool = False,
    ) -> SourceTarget:
        """The parts of each row before and from the first `start` token on; targets are filled up
        on the right, or on the left.
        """
        real = torch.ones_like(tokens, dtype=torch.bool) if real is None else real
        begins = (tokens == self.divider) & real
        bare = (~begins.any(1)).nonzero()
        order = torch.arange(tokens.shape[1], device=tokens.device)
        is_target = real & (order >= begins.long().argmax(1, keepdim=True))
        is_source = real & ~is_target
        empty = (~is_source.any(1)).nonzero()
        if len(bare) or len(empty):
            row = int((bare if len(bare) else empty)[0])
            raise InvalidData(
                f"Row {row} has no start token {self.divider}."
                if len(bare)
                else f"Row {row} has no source: it begins with the start token {self.divider}.",
                why="it divides what the encoder reads from what the decoder writes.",
                fix="make rows of source, start token and target, as encode_pairs(…) does.",
            )
        source, source_real = _gather(tokens, is_source)
        target, target_real = _gather(tokens, is_target, padded_left)
        if self.closing is not None:
            source, source_real = _append(source, source_real, self.closing)
        return SourceTarget(source, source_real, target, target_real, is_target)

    def read(
        self, tokens: Int[Tensor, "b s"], real: Bool[Tensor, "b read"], state: EncodedSource | None
    ) -> tuple[Float[Tensor, "b s v"], EncodedSource]:
        """Logits of the new tokens and the state to go on from, as `engine/decode.py` asks."""
        if state is not None:
            return self._read_on(tokens, real, state)
        rows = self._divide_to_read(tokens, real)
        logits, state = self._read_first(rows)
        return self._join(logits, rows), state

    def read_last(
        self, tokens: Int[Tensor, "b s"], real: Bool[Tensor, "b read"], state: EncodedSource | None
    ) -> tuple[Float[Tensor, "b v"], EncodedSource]:
        """As `read`, with the logits of the last token alone, of rows that end in no padding."""
        if state is not None:
            logits, state = self._read_on(tokens, real, state)
        else:
            rows = self._divide_to_read(tokens, real)
            self._refuse_gaps(rows.target_real)
            logits, state = self._read_first(rows)
        return logits[:, -1], state

    def select(self, state: EncodedSource, rows: Int[Tensor, " row"]) -> EncodedSource:
        """A new state that holds these rows of one."""
        if isinstance(state.cache, StepCache):
            cache: Any = state.cache.select(rows)
        else:
            cache = copy.deepcopy(state.cache)
            cache.batch_select_indices(rows)
        return EncodedSource(state.hidden[rows], state.real[rows], state.target_real[rows], cache)

    def _divide_to_read(self, tokens: Tensor, real: Tensor) -> SourceTarget:
        return self.divide(tokens, real, padded_left=self._is_relative)

    @property
    def _is_relative(self) -> bool:
        return self.model.config.model_type in RELATIVE

    def _refuse_gaps(self, target_real: Bool[Tensor, "b target"]) -> None:
        if not self._is_relative and not bool(target_real.all()):
            raise UnsupportedLayer(
                f"A {self.model.config.model_type} cannot read on from beginnings of targets of "
                "unequal length.",
                why="its positions are counted from the first token, padding included.",
                fix="give beginnings of one length at a time.",
            )

    def _read_first(self, rows: SourceTarget) -> tuple[Tensor, EncodedSource]:
        hidden = self.model.get_encoder()(
            input_ids=rows.source, attention_mask=rows.source_real.long()
        ).last_hidden_state
        state = EncodedSource(hidden, rows.source_real, rows.target_real, None)
        return self._write(rows.target, state)

    def _read_on(
        self, tokens: Tensor, real: Tensor, state: EncodedSource
    ) -> tuple[Tensor, EncodedSource]:
        self._refuse_gaps(state.target_real)
        seen = torch.cat([state.target_real, real[:, -tokens.shape[1] :]], 1)
        stepping = isinstance(state.cache, StepCache)
        if stepping or (tokens.shape[1] == 1 and takes_steps(self.model)):
            return self._step_on(tokens, EncodedSource(state.hidden, state.real, seen, state.cache))
        return self._write(tokens, EncodedSource(state.hidden, state.real, seen, state.cache))

    def _step_on(self, tokens: Tensor, state: EncodedSource) -> tuple[Tensor, EncodedSource]:
        cache = state.cache
        if not isinstance(cache, StepCache):
            cache = StepCache.of(self.model, cache, state.real)
        before = state.target_real.shape[1] - tokens.shape[1]
        found = []
        for k in range(tokens.shape[1]):
            real = state.target_real[:, : before + k + 1]
            logits, cache = step(self.model, tokens[:, k], cache, real)
            found.append(logits)
        seen = EncodedSource(state.hidden, state.real, state.target_real, cache)
        return torch.stack(found, 1), seen

    def _write(self, tokens: Tensor, state: EncodedSource) -> tuple[Tensor, EncodedSource]:
        seen = self.model(
            encoder_outputs=(state.hidden,),
            attention_mask=state.real.long(),
            decoder_input_ids=tokens,
            decoder_attention_mask=state.target_real.long(),
            past_key_values=state.cache,
            use_cache=True,
        )
        state.cache = seen.past_key_values
        return seen.logits, state

    def _join(self, logits: Float[Tensor, "b target v"], rows: SourceTarget) -> Tensor:
        joined = logits.new_zeros(*rows.is_target.shape, logits.shape[-1])
        joined[rows.is_target] = logits[rows.target_real]
        return joined


def _gather(
    tokens: Int[Tensor, "b s"], chosen: Bool[Tensor, "b s"], padded_left: bool = False
) -> tuple[Int[Tensor, "b part"], Bool[Tensor, "b part"]]:
    """The chosen tokens of each row in their order, with padding (token 0) on one side."""
    width = int(chosen.sum(1).max())
    order = (chosen if padded_left else ~chosen).long().argsort(dim=1, stable=True)
    order = order[:, -width:] if padded_left else order[:, :width]
    real = chosen.gather(1, order)
    return tokens.gather(1, order).masked_fill(~real, 0), real


def _append(
    tokens: Int[Tensor, "b s"], real: Bool[Tensor, "b s"], token: int
) -> tuple[Int[Tensor, "b more"], Bool[Tensor, "b more"]]:
    """The token behind the last real one of each row."""
    ends = real.sum(1, keepdim=True)
    longer = torch.cat([tokens, tokens.new_zeros(len(tokens), 1)], 1).scatter(1, ends, token)
    order = torch.arange(longer.shape[1], device=tokens.device)
    return longer, order <= ends


def t5(
    vocabulary: int,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    hidden: int | None = None,
    dropout: float = 0.1,
) -> EncoderDecoder:
    """A T5 (Raffel et al., 2020, arXiv:1910.10683) with random weights for the tokens of
    `engine.token_pairs`: `layers` in the encoder and as many in the decoder.
    """
    try:
        from transformers import T5Config, T5ForConditionalGeneration
    except ImportError as error:
        raise MissingExtra(
            "Encoder–decoders need the library transformers.",
            why="it is an optional extra and is not installed.",
            fix='pip install "unseen[language]"',
        ) from error
    if width % heads:
        raise InvalidConfig(
            f"{heads} heads do not divide a width of {width}.",
            why="each head has an equal part of it.",
            fix="choose for example width=64, heads=4.",
        )
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": width // heads,
        "d_ff": 4 * width if hidden is None else hidden,
        "num_layers": layers,
        "num_heads": heads,
        "dropout_rate": dropout,
    }
    special: dict[str, Any] = {
        "decoder_start_token_id": TO,
        "pad_token_id": PAD,
        "eos_token_id": END,
    }
    config = T5Config(**shape, **special)
    return EncoderDecoder(T5ForConditionalGeneration(config))


def load_encoder_decoder(folder: Path | str) -> EncoderDecoder:
    """The encoder–decoder and tokenizer saved in a folder, from safetensors, without running any
    code that lies there. The tokenizer's end token closes sources and targets.
    """
    folder = Path(folder)
    refuse_no_model(folder)
    refuse_no_tokenizer(folder)
    refuse_pickles(folder)
    try:
        from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer
    except ImportError as error:
        raise MissingExtra(
            "Encoder–decoders need the library transformers.",
            why="it is an optional extra and is not installed.",
            fix='pip install "unseen[language]"',
        ) from error
    safe = {"local_files_only": True, "trust_remote_code": False}
    with refuse_broken(folder):
        config = AutoConfig.from_pretrained(folder, **safe)
        if not config.is_encoder_decoder:
            raise InvalidData(
                f"{folder} holds a {config.model_type}, which is no encoder–decoder.",
                why="source and target of a pair are read by a part each.",
                fix="give the folder of a T5, BART or another model with both parts.",
            )
        found: Any = AutoModelForSeq2SeqLM.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, **safe
        )
        model, loaded = found
        refuse_incomplete(folder, model, loaded)
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
    refuse_other_vocabulary(model, tokenizer.vocab_size)
    end = tokenizer.eos_token_id
    if end is None:
        raise InvalidData(
            f"The tokenizer in {folder} has no end token.",
            why="a target without an end is written on for ever.",
            fix="set tokenizer.eos_token and save it again.",
        )
    return EncoderDecoder(model, closing=end, tokenizer=tokenizer)
