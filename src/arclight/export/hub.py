"""Uploads an export to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from arclight.errors import InputError, first_line


def check_hub_name(name: str) -> None:
    """Raises InputError for a name that no model on the hub can have."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"--push {name}: {first_line(error)}. Try: --push USER/MODEL") from error


def push(directory: Path, name: str) -> str:
    """Uploads a directory as a private model, made where it does not exist, and returns the address of the commit.

    Raises:
        InputError: when the hub refuses or does not answer; what was exported stays.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        repository = api.create_repo(name, private=True, exist_ok=True)
        commit = api.upload_folder(repo_id=repository.repo_id, folder_path=directory, commit_message="Export of arclight")
    except Exception as error:  # of requests, httpx and the hub
        raise InputError(
            f"--push {name}: {type(error).__name__}: {first_line(error)}. {directory} stays. Log in with `hf auth login`, "
            f"then: hf upload {name} {directory}"
        ) from error
    return str(commit.commit_url)
