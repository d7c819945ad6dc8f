"""The Hugging Face hub: files of models are fetched and pushed, through `huggingface_hub`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from omnialign.errors import HubError

SCHEME = "hub"
LIBRARY = "omnialign"


def fetch(name: str, revision: str | None, files: Sequence[str]) -> Path:
    """Brings files of a model into the hub's cache, those that are not there yet.

    Args:
        name: `user/name`.
        revision: a branch, a tag or a commit; by default the main branch.
        files: patterns of what is wanted; nothing else is downloaded.

    Returns:
        The folder of that revision; its name is the commit.

    Raises:
        HubError: there is no such model or revision, it may not be read, or the hub cannot be
            reached and the cache lacks a file.
    """
    from huggingface_hub import snapshot_download

    _check_name(name)
    with _explained("fetch", name, revision):
        found = snapshot_download(
            name, revision=revision, allow_patterns=list(files), library_name=LIBRARY
        )
    return Path(found)


def create(name: str, private: bool) -> None:
    """Makes the repository of a model, where there is none.

    Raises `HubError`: nobody is logged in, it is another's, or it is public and wanted private.
    """
    _check_name(name)
    api = _api()
    with _explained("push to", name):
        api.create_repo(name, private=private, exist_ok=True)
        is_public = private and not api.model_info(name).private
    if is_public:
        raise HubError(
            f"{SCHEME}:{name} is there and public, and only a new model is made private; make it "
            f"private at {api.endpoint}/{name}/settings, or choose another name"
        )


def upload(folder: Path, name: str) -> str:
    """Makes the files of a model those of a folder; gives `hub:user/name@commit`.

    What the folder lacks of towers' files is deleted there. Raises `HubError` as `create` does.
    """
    with _explained("push to", name):
        commit = _api().upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message="A model of OmniAlign",
            delete_patterns=["encoders/*", "weights/*"],
        )
    return f"{SCHEME}:{name}@{commit.oid}"


def stated_licence(
    name: str, repo_type: Literal["model", "dataset"], revision: str | None = None
) -> str | None:
    """The licence that a repository's card states; None where it states none or is out of reach."""
    try:
        with _explained("ask about", name, revision):
            info: Any = _api().repo_info(name, repo_type=repo_type, revision=revision, timeout=10)
    except HubError:
        return None
    return _licence(info.card_data)


def licence_beside(path: Path) -> str | None:
    """The licence that the card in a folder, or beside a file, states; None without one."""
    from huggingface_hub import metadata_load

    card = (path if path.is_dir() else path.parent) / "README.md"
    try:
        return _licence(metadata_load(card)) if card.is_file() else None
    except Exception as error:  # of YAML, which is not ours to name
        raise HubError(f"{card}: its front matter cannot be read: {_cause(error)}") from None


def _licence(front_matter: Any) -> str | None:
    """What the front matter of a card says; several licences apply together."""
    stated = (front_matter or {}).get("license")
    return " AND ".join(map(str, stated)) if isinstance(stated, list) else stated


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(library_name=LIBRARY)


@contextmanager
def _explained(what: str, name: str, revision: str | None = None) -> Generator[None]:
    """Makes every refusal of the hub a `HubError` of one line that says what to do."""
    from huggingface_hub import constants, errors, get_token

    model, place = f"{SCHEME}:{name}", f"{constants.ENDPOINT}/{name}"
    log_in = "log in: hf auth login" if get_token() is None else "see who you are: hf auth whoami"
    try:
        yield
    except errors.HFValidationError as error:
        raise _no_name(name) from error
    except errors.GatedRepoError as error:
        raise HubError(f"{model} is gated; ask for access at {place}, then {log_in}") from error
    except errors.RevisionNotFoundError as error:
        raise HubError(
            f"{model} has no revision '{revision}'; it wants a branch, a tag or a whole commit of "
            f"{place}/commits/main"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"the hub shows no {model}; check the name, or if it is private, {log_in}"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise HubError(
            f"cannot {what} {model}: "
            + (
                "HF_HUB_OFFLINE is set; unset it to reach the hub"
                if constants.HF_HUB_OFFLINE
                else f"the hub does not answer ({_cause(error)}), and not all that is wanted is in "
                "the cache; try again when the network is back"
            )
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise HubError(
            f"you may not {what} {model} ({status}); it takes a name of your own and a token that "
            f"may write; {log_in}"
            if status in (401, 403)
            else f"cannot {what} {model}: {_cause(error)}"
        ) from error
    except Exception as error:  # the library's network layer has errors of its own
        raise HubError(
            f"cannot {what} {model} at {constants.ENDPOINT}: {_cause(error)}; check the network "
            "and try again"
        ) from error


def _check_name(name: str) -> None:
    if name.count("/") != 1:
        raise _no_name(name)


def _no_name(name: str) -> HubError:
    return HubError(
        f"'{name}' is no name of a model on the hub; it wants USER/NAME, as in ada/birds"
    )


def _cause(error: BaseException) -> str:
    """The first line of what began it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".partition("\n")[0]
