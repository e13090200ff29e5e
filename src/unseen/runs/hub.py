"""Uploads to the Hugging Face hub, through huggingface_hub (extra `hub`)."""

import importlib
import re
from pathlib import Path
from typing import Any

from unseen.errors import InvalidConfig, MissingExtra, UnseenError

REPOSITORY = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
CARD = "README.md"
SIGNATURE = "unseen_version:"
"""In the front matter of every card that is written here."""


class UploadFailed(UnseenError, OSError):
    """The hub did not take the files."""


def check_repository(name: str) -> str:
    """The name of a repository, refused where the hub knows no such names."""
    if not REPOSITORY.fullmatch(name):
        raise InvalidConfig(
            f"`{name}` is no name of a repository.",
            why="the hub names them OWNER/NAME, by letters, digits, points, hyphens and "
            "underscores.",
            fix="--to your-name/heart-audit",
        )
    return name


def upload(folder: Path, repository: str, is_dataset: bool, into: str = "") -> str:
    """Uploads a folder to a repository, which is made (private) where there is none; returns its
    address. A card that somebody else wrote is never replaced: `into` names a folder beside it.
    """
    library = _library()
    hub, kind = library.HfApi(), "dataset" if is_dataset else "model"
    try:
        hub.create_repo(repository, repo_type=kind, private=True, exist_ok=True)
        if not into and hub.file_exists(repository, CARD, repo_type=kind):
            card = Path(library.hf_hub_download(repository, CARD, repo_type=kind))
            _refuse_other_card(card.read_text("utf-8"), repository)
        hub.upload_folder(
            folder_path=folder,
            repo_id=repository,
            repo_type=kind,
            path_in_repo=into or None,
            commit_message="Report of Unseen",
        )
    except UnseenError:
        raise
    # the errors of huggingface_hub and of what it asks the network with have no common ancestor
    except Exception as error:
        raise UploadFailed(
            f"{repository} could not be written: {type(error).__name__}.",
            why=" ".join(str(error).split())[:300] or "the hub gave no reason.",
            fix=f"log in with `hf auth login` (write access), or upload {folder} by hand.",
        ) from error
    return f"https://huggingface.co/{'datasets/' * is_dataset}{repository}"


def _refuse_other_card(card: str, repository: str) -> None:
    head = card.split("\n---", 1)[0]
    if SIGNATURE not in head:
        raise InvalidConfig(
            f"{repository} has a card that Unseen did not write.",
            why="it would be replaced.",
            fix="--into unseen puts the report in a folder beside it.",
        )


def check_library() -> None:
    """Refuses to go on where huggingface_hub is missing."""
    _library()


def _library() -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise MissingExtra(
            "huggingface_hub is not installed.",
            why="it uploads to the hub (--dry-run writes the folder without it).",
            fix='pip install "unseen[hub]"',
        ) from error
