"""The generator that a page shows: the shipped one, or one from a file of the user's."""

from pathlib import Path

from torch import nn

from unseen.data.files import data_file
from unseen.errors import InvalidConfig, InvalidData
from unseen.models.generator import VAE, ImageGenerator
from unseen.runs.tensors import read_weights
from unseen.subjects.python_files import load_call, refuse_nameless

SHIPPED = "fashion-vae"


def shipped_generator() -> ImageGenerator:
    """A small autoencoder of Fashion-MNIST."""
    model = VAE()
    weights = read_weights(data_file("fashion-vae/vae.safetensors"))
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return model.generator(SHIPPED, licence="MIT (Fashion-MNIST)")


def load_generator(text: str = "") -> ImageGenerator:
    """What `path/to/file.py:name` makes; without a text the shipped one.

    It is an `ImageGenerator`, or a module with an attribute `latent_size`.
    """
    if not text or text == SHIPPED:
        return shipped_generator()
    if Path(text).suffix == ".py" and Path(text).is_file():
        refuse_nameless(Path(text))
    if ".py:" not in text:
        raise InvalidConfig(
            f"`{text}` is no generator.",
            why="it is a function or object of a Python file.",
            fix=f"for example my_generator.py:subject, or nothing for the shipped {SHIPPED}.",
        )
    found = load_call(text, "unseen compass")
    size = getattr(found, "latent_size", None)
    if isinstance(found, ImageGenerator):
        return require_images(found)
    if isinstance(found, nn.Module) and isinstance(size, int):
        name = text.rpartition(":")[2]
        return require_images(ImageGenerator(found, size, name))
    raise InvalidData(
        f"`{text}` is a {type(found).__name__}, not a generator.",
        why="images are made from latents of a known length.",
        fix="return unseen.models.generator.ImageGenerator(decoder, latent_size), or a module with "
        "an attribute latent_size.",
    )


def require_images(generator: ImageGenerator) -> ImageGenerator:
    """The generator, after it has made one image and listed its layers."""
    import torch

    try:
        generator.images(torch.zeros(1, generator.latent_size))
    except RuntimeError as error:  # of torch: another number of latents
        raise InvalidData(
            f"The generator `{generator.name}` failed: {str(error).splitlines()[0]}",
            why=f"it was given one latent of {generator.latent_size} numbers.",
            fix="correct latent_size, or the decoder.",
        ) from error
    return generator
