"""Tiny random language models of transformers with a tokenizer of characters, saved as transformers
saves them.
"""

from pathlib import Path

import torch


def letters(path: Path) -> None:
    """One token per printable ASCII character: its code − 32."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.WordLevel({chr(k): k - 32 for k in range(32, 127)}, unk_token="?"))
    plain.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    plain.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="?").save_pretrained(path)


def llama(path: Path, *, seed: int = 0, context: int = 64, width: int = 16) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    letters(path)
    config = LlamaConfig(
        vocab_size=95,
        hidden_size=width,
        intermediate_size=24,
        num_hidden_layers=2,
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
    model.save_pretrained(path)
    return path
