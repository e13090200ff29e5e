"""Weights and models from the `transformers` library: GPT-2 and Llama as a `Transformer`, any
causal LM behind one interface.

Weights are read from safetensors only: a pickle can run any code when it is opened.
"""

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen.errors import (
    CorruptFile,
    InvalidData,
    MissingExtra,
    MissingFile,
    UnseenError,
    UnsupportedLayer,
)
from unseen.models.transformer import Activation, Decoder, Norm, Positions, Transformer


def from_gpt2(model: Any) -> Transformer:
    """The same function as transformers' `GPT2LMHeadModel`, dropout aside."""
    config = model.config
    _refuse_variant(
        model,
        model_type=("gpt2",),
        activation_function=("gelu_new", "gelu_pytorch_tanh"),
        scale_attn_weights=(True,),
        scale_attn_by_inverse_layer_idx=(False,),
        add_cross_attention=(False,),
    )
    shape = Decoder(
        vocabulary=config.vocab_size,
        width=config.n_embd,
        layers=config.n_layer,
        heads=config.n_head,
        hidden=config.n_inner,
        context=config.n_positions,
        tied=config.tie_word_embeddings,
        epsilon=config.layer_norm_epsilon,
    )
    inside = model.transformer
    weights = {
        "embed.weight": inside.wte.weight,
        "position.weight": inside.wpe.weight,
        **_norm("norm", inside.ln_f),
    }
    weights["head.weight"] = model.lm_head.weight
    for k, layer in enumerate(inside.h):
        weights |= _norm(f"blocks.{k}.attention_norm", layer.ln_1) | _norm(
            f"blocks.{k}.mlp_norm", layer.ln_2
        )
        maps = {"attention.qkv": layer.attn.c_attn, "attention.out": layer.attn.c_proj}
        maps |= {"mlp.up": layer.mlp.c_fc, "mlp.down": layer.mlp.c_proj}
        for name, conv in maps.items():  # transformers' Conv1D stores the transpose
            weights |= {
                f"blocks.{k}.{name}.weight": conv.weight.T,
                f"blocks.{k}.{name}.bias": conv.bias,
            }
    return _transformer_with(shape, weights)


def from_llama(model: Any) -> Transformer:
    """The same function as transformers' `LlamaForCausalLM` with plain rotary positions."""
    config = model.config
    _refuse_variant(
        model,
        model_type=("llama",),
        hidden_act=("silu",),
        attention_bias=(False,),
        mlp_bias=(False,),
    )
    rope = config.rope_parameters
    if (
        rope.get("rope_type", "default") != "default"
        or config.head_dim * config.num_attention_heads != config.hidden_size
    ):
        raise _unsupported_layer(
            model, f"rope_type={rope.get('rope_type')}, head_dim={config.head_dim}"
        )
    shape = Decoder(
        vocabulary=config.vocab_size,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
        hidden=config.intermediate_size,
        context=config.max_position_embeddings,
        positions=Positions.ROTARY,
        norm=Norm.RMS,
        activation=Activation.SWIGLU,
        tied=config.tie_word_embeddings,
        bias=False,
        epsilon=config.rms_norm_eps,
        rotary_base=rope["rope_theta"],
    )
    inside = model.model
    weights = {"embed.weight": inside.embed_tokens.weight, "norm.weight": inside.norm.weight}
    weights["head.weight"] = model.lm_head.weight
    for k, layer in enumerate(inside.layers):
        own, mlp = layer.self_attn, layer.mlp
        query, key = (neighbours(p.weight, shape.head_size) for p in (own.q_proj, own.k_proj))
        weights |= {
            f"blocks.{k}.attention_norm.weight": layer.input_layernorm.weight,
            f"blocks.{k}.attention.qkv.weight": torch.cat([query, key, own.v_proj.weight]),
            f"blocks.{k}.attention.out.weight": own.o_proj.weight,
            f"blocks.{k}.mlp_norm.weight": layer.post_attention_layernorm.weight,
            f"blocks.{k}.mlp.gate.weight": mlp.gate_proj.weight,
            f"blocks.{k}.mlp.up.weight": mlp.up_proj.weight,
            f"blocks.{k}.mlp.down.weight": mlp.down_proj.weight,
        }
    return _transformer_with(shape, weights)


def neighbours(weight: Float[Tensor, "rows inputs"], size: int) -> Float[Tensor, "rows inputs"]:
    """Llama's rows, where coordinate j of a head is paired with j + size/2, in the order that pairs
    2j with 2j + 1.

    Queries and keys are reordered alike, so their scores stay the same.
    """
    return weight.unflatten(0, (-1, 2, size // 2)).transpose(1, 2).flatten(0, 2)


def _norm(name: str, layer: nn.LayerNorm) -> dict[str, Tensor]:
    return {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}


def _transformer_with(shape: Decoder, weights: dict[str, Tensor]) -> Transformer:
    made = Transformer(shape).to(weights["embed.weight"])
    made.load_state_dict({name: tensor.detach() for name, tensor in weights.items()})
    return made


def _refuse_variant(model: Any, **allowed: tuple[Any, ...]) -> None:
    for name, values in allowed.items():
        if getattr(model.config, name, None) not in values:
            raise _unsupported_layer(model, f"{name}={getattr(model.config, name, None)!r}")


def _unsupported_layer(model: Any, seen: str) -> UnsupportedLayer:
    return UnsupportedLayer(
        f"{type(model).__name__} with {seen} cannot be copied into a Transformer.",
        why="the copy would compute another function.",
        fix="use it as it is: CausalLM(model, tokenizer).",
    )


class CausalLM(nn.Module):
    """A causal language model of transformers that answers `model(tokens) -> logits`, with its
    tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.training = model.training  # else restoring it would switch the model's dropout on
        takes = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in takes
        self._keeps_logits = "logits_to_keep" in takes

    def forward(self, tokens: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        return self.model(input_ids=tokens, use_cache=False).logits

    def read(
        self, tokens: Int[Tensor, "b s"], real: Bool[Tensor, "b read"], state: Any
    ) -> tuple[Float[Tensor, "b s v"], Any]:
        """Logits of the new tokens and the key-value cache to go on from, as `engine/decode.py`
        asks.
        """
        seen = self._read(tokens, real, state)
        return seen.logits, seen.past_key_values

    def read_last(
        self, tokens: Int[Tensor, "b s"], real: Bool[Tensor, "b read"], state: Any
    ) -> tuple[Float[Tensor, "b v"], Any]:
        """As `read`, with the logits of the last token alone: a large vocabulary costs as much as
        many layers.
        """
        few = {"logits_to_keep": 1} if self._keeps_logits else {}
        seen = self._read(tokens, real, state, **few)
        return seen.logits[:, -1], seen.past_key_values

    def read_layers(
        self,
        tokens: Int[Tensor, "b s"],
        real: Bool[Tensor, "b read"],
        state: Any,
        layers: Sequence[int],
    ) -> tuple[Float[Tensor, "b s v"], Float[Tensor, "b s layer d"]]:
        """Logits and the hidden states behind `layers` (0: the embedding) of the new tokens."""
        seen = self._read(tokens, real, state, output_hidden_states=bool(layers))
        if not layers:
            return seen.logits, seen.logits.new_zeros(*tokens.shape, 0, 0)
        return seen.logits, torch.stack([seen.hidden_states[k] for k in layers], 2)

    def select(self, state: Any, rows: Int[Tensor, " row"]) -> Any:
        """A new key-value cache that holds these rows of one."""
        chosen = copy.deepcopy(state)
        chosen.batch_select_indices(rows)
        return chosen

    def _read(self, tokens: Tensor, real: Tensor, state: Any, **more: Any) -> Any:
        at = (real.cumsum(1) - 1).clamp_min(0)[:, -tokens.shape[1] :]
        where = {"position_ids": at} if self._takes_positions else {}
        return self.model(
            input_ids=tokens,
            attention_mask=real.long(),
            past_key_values=state,
            use_cache=True,
            **where,
            **more,
        )

    @property
    def context(self) -> int | None:
        """Positions that the model has; None where its configuration names no limit."""
        return getattr(self.model.config, "max_position_embeddings", None)

    @property
    def start(self) -> list[int]:
        """The tokens that the tokenizer puts before every text, as the model was trained."""
        bos = getattr(self.tokenizer, "bos_token_id", None)
        before = list(self.tokenizer.encode("")) if bos is not None else []
        return before[:1] if before[:1] == [bos] else []

    def encode(self, text: str) -> list[int]:
        """Token numbers without special tokens: prompts and completions are joined by the
        caller.
        """
        return list(self.tokenizer.encode(text, add_special_tokens=False))


def load_causal(folder: Path | str) -> CausalLM:
    """The causal LM and tokenizer saved in a folder, from safetensors, without running any code
    that lies there.
    """
    folder = Path(folder)
    refuse_no_model(folder)
    refuse_no_tokenizer(folder)
    refuse_pickles(folder)
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise MissingExtra(
            "Language models need the library transformers.",
            why="it is an optional extra and is not installed.",
            fix='pip install "unseen[language]"',
        ) from error
    safe = {"local_files_only": True, "trust_remote_code": False}
    with refuse_broken(folder):
        found: Any = AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, **safe
        )
        model, loaded = found
        refuse_incomplete(folder, model, loaded)
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
    # without tokens that were added behind it, such as one for padding, which no text holds
    refuse_other_vocabulary(model, tokenizer.vocab_size)
    return CausalLM(model, tokenizer)


TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")


def refuse_no_model(folder: Path) -> None:
    """Refuses a folder that transformers did not save a model to."""
    if not (folder / "config.json").is_file():
        raise MissingFile(
            f"{folder} holds no transformers model.",
            why="there is no config.json in it.",
            fix="give a folder made by model.save_pretrained(folder) and "
            "tokenizer.save_pretrained(folder).",
        )


def refuse_no_tokenizer(folder: Path) -> None:
    """Refuses a folder without a tokenizer: transformers would make one that knows no words."""
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise MissingFile(
            f"{folder} holds no tokenizer.",
            why=f"none of {', '.join(TOKENIZER_FILES)} is in it.",
            fix="save it beside the model: tokenizer.save_pretrained(folder).",
        )


@contextmanager
def refuse_broken(folder: Path) -> Iterator[None]:
    """What transformers says of a folder that it cannot load, as an error of a file."""
    try:
        yield
    except UnseenError:
        raise
    except Exception as error:  # of json, safetensors and tokenizers, each its own
        said = " ".join(str(error).split())
        raise CorruptFile(
            f"The model in {folder} cannot be loaded.",
            why=said if len(said) <= 300 else f"{said[:299]}…",
            fix="save model and tokenizer again with save_pretrained(folder); a kind of model that "
            "is not known may need a newer transformers.",
        ) from error


def refuse_other_vocabulary(model: Any, size: int) -> None:
    """Refuses a tokenizer of more tokens than the model has vectors for."""
    known = model.get_input_embeddings().num_embeddings
    if size > known:
        raise InvalidData(
            f"The tokenizer has {size:,} tokens, {type(model).__name__} {known:,}.",
            why="they belong to different models: the numbers of its tokens mean other words.",
            fix="give a folder with the model and its own tokenizer.",
        )


def refuse_incomplete(folder: Path, model: Any, loaded: Mapping[str, Any]) -> None:
    """Raises where the checkpoint lacks weights of the model, or holds some of another shape
    (transformers draws such at random), or some that are no numbers.
    """
    broken = [name for name, p in model.named_parameters() if not torch.isfinite(p).all()]
    if broken:
        raise InvalidData(
            f"The weights {broken[0]} in {folder} hold NaN or infinite numbers.",
            why="whatever the model answers would be one of these.",
            fix="save the model at a step before its training diverged.",
        )
    lacks = sorted([*loaded["missing_keys"], *(str(key[0]) for key in loaded["mismatched_keys"])])
    if not lacks:
        return
    saved = ", ".join(getattr(model.config, "architectures", None) or ["another model"])
    more = f" and {len(lacks) - 3} more" if len(lacks) > 3 else ""
    raise InvalidData(
        f"The checkpoint in {folder} has no {', '.join(lacks[:3])}{more} for a "
        f"{type(model).__name__}.",
        why="these weights would be random, and so would the answers.",
        fix=f"it was saved from {saved}: give the folder of a model with this head, saved by "
        "save_pretrained after it was trained.",
    )


PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def refuse_pickles(path: Path) -> None:
    """Raises unless the weights (a file, or a folder's) are safetensors."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    pickled = [
        file.name for file in files if file.suffix in PICKLED and file.name != "training_args.bin"
    ]
    if path.is_dir() and any(file.suffix == ".safetensors" for file in files):
        return  # the pickles beside them are never opened
    if pickled:
        raise InvalidData(
            f"The weights {pickled[0]} in {path.parent if path.is_file() else path} are a pickle.",
            why="opening a pickle runs whatever code is stored in it.",
            fix="where you trust it, convert it once: safetensors.torch.save_file(torch.load(file, "
            'weights_only=True), "model.safetensors").',
        )
    if not any(file.suffix == ".safetensors" for file in files):
        raise MissingFile(
            f"{path} holds no weights.",
            why="no .safetensors file is there.",
            fix="save the model again.",
        )
