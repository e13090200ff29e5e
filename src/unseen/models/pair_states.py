"""The states of an encoder–decoder on a batch of pairs, as losses of states need them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen.errors import UnsupportedLayer
from unseen.models.encoder_decoder import EncoderDecoder


@dataclass(frozen=True)
class PairStates:
    """What encoder and decoder hold of a batch, token by token, without padding."""

    source: Float[Tensor, "n d"]
    source_rows: Int[Tensor, " n"]
    target: Float[Tensor, "m d"]
    """What the output head reads of the decoder: T5 scales its states before."""
    target_rows: Int[Tensor, " m"]
    logits: Float[Tensor, "m v"]


def states_at(
    model: EncoderDecoder, tokens: Int[Tensor, "b s"], where: Bool[Tensor, "b s"]
) -> PairStates:
    """The states of one pass (and one draw of dropout): all of the source, of the target those at
    the marked positions, row by row.
    """
    rows = model.divide(tokens)
    asked = torch.zeros_like(rows.target_real)
    asked[rows.target_real] = where[rows.is_target]
    found: list[Tensor] = []

    def choose(head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        found.append(inputs[0][asked])
        return (found[0][None], *inputs[1:])

    handle = model.model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        seen = model.model(
            input_ids=rows.source,
            attention_mask=rows.source_real.long(),
            decoder_input_ids=rows.target,
            decoder_attention_mask=rows.target_real.long(),
            use_cache=False,
        )
    finally:
        handle.remove()
    return PairStates(
        seen.encoder_last_hidden_state[rows.source_real],
        rows.source_real.nonzero()[:, 0],
        found[0],
        asked.nonzero()[:, 0],
        seen.logits[0],
    )


def logits_of(model: EncoderDecoder, states: Float[Tensor, "m d"]) -> Float[Tensor, "m v"]:
    """The logits of decoder states as the head reads them."""
    logits = model.model.get_output_embeddings()(states)
    bias = getattr(model.model, "final_logits_bias", None)  # BART and its relatives add one
    return logits if bias is None else logits + bias[0]


def refuse_other_logits(model: EncoderDecoder, states: PairStates) -> None:
    """Raises where the model does more with its states than its head does."""
    if not torch.allclose(logits_of(model, states.target), states.logits, rtol=1e-3, atol=1e-3):
        raise UnsupportedLayer(
            f"The logits of a {type(model.model).__name__} are not those of its head.",
            why="moved states go through the head alone, so their words would be others.",
            fix="use a model whose logits are a linear map of its last states (T5, BART, Marian).",
        )
