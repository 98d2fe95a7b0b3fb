"""Puts an exported directory on the Hugging Face hub, or wherever HF_ENDPOINT says."""

from pathlib import Path

from condenser_jax.errors import UserError
from condenser_jax.hf.load import HEAD_FILES, QUERY_ENCODER
from condenser_jax.hf.onnx_file import ONNX_FILE

# What one export has and the next perhaps not: whoever reads the repository would read it too.
SOMETIMES = (f"{QUERY_ENCODER}/*", ONNX_FILE, *HEAD_FILES.values(), "2_Normalize/*")
DELETE = "".join(f" --delete='{pattern}'" for pattern in SOMETIMES)


def check_repository(repository: str) -> None:
    """Raises UserError for a name that no repository can have, and where there is no token: before
    anything else is done.
    """
    import huggingface_hub
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except ValueError as error:
        raise UserError(
            f"{repository!r} cannot name a repository of the hub; expected --push=NAME/MODEL"
        ) from error
    if not huggingface_hub.get_token():
        raise UserError(
            f"there is no token to write {repository} with; run `hf auth login` or set HF_TOKEN"
        )


def push(directory: Path, repository: str) -> str:
    """Uploads all files of a directory in one commit, and makes the repository if there is none;
    returns its address. What an earlier export left there and this one has not goes.

    Raises UserError if that fails; the directory stays as it is.
    """
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=directory,
            delete_patterns=list(SOMETIMES),
            commit_message="Export of condenser_jax",
        )
    except Exception as error:  # a dozen kinds: refused, offline, no network, too large
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise UserError(
            f"{directory} is exported and whole, but {repository} could not be written ({reason}); "
            f"check token and network, then: hf upload {repository} {directory}{DELETE}"
        ) from error
    return f"{api.endpoint}/{repository}"
