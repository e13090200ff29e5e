"""An untrained causal language model of bytes: texts go the way that they go with a real one, in
milliseconds.
"""

import torch

from unseen.errors import MissingExtra
from unseen.models.pretrained import CausalLM


def tiny_causal(seed: int = 0, width: int = 16, layers: int = 2, context: int = 4096) -> CausalLM:
    """A Llama with random weights and one token per byte."""
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingExtra(
            "Language models need the library transformers.",
            why="it is an optional extra and is not installed.",
            fix='pip install "unseen[language]"',
        ) from error
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(models.BPE({letter: k for k, letter in enumerate(letters)}, []))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    plain.decoder = decoders.ByteLevel()
    config = LlamaConfig(
        vocab_size=len(letters),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4 if p.dim() > 1 else 1)  # so that predictions differ from uniform
    return CausalLM(model.eval(), PreTrainedTokenizerFast(tokenizer_object=plain))
