"""Where the files of a model are: in a folder, or on the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import CRITICAL
from pathlib import Path
from typing import Any

from omnialign import ModelError


def refuse_revision(name: str, revision: str | None) -> None:
    """Raises `ModelError` for a revision of what is on this machine."""
    if revision is not None and Path(name).exists():
        raise ModelError(
            f"'{name}' is on this machine and has no revision '{revision}'; leave the revision out"
        )


@contextmanager
def hub_quietly() -> Generator[None]:
    """Without the reports of `huggingface_hub` that it tries again."""
    from huggingface_hub.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)


@dataclass(frozen=True)
class Place:
    """A folder, or a repository of the hub at a revision; `str` of it names it in errors."""

    name: str
    revision: str | None = None

    def __post_init__(self) -> None:
        refuse_revision(self.name, self.revision)

    @property
    def is_folder(self) -> bool:
        return Path(self.name).is_dir()

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name

    def file(self, *names: str) -> Path:
        """The first of `names` that is there, downloaded where it is not on this machine.

        Raises `ModelError` that says what was looked for.
        """
        wanted = " or ".join(names)
        if self.is_folder:
            found = [Path(self.name, name) for name in names if Path(self.name, name).is_file()]
            if not found:
                raise ModelError(f"the folder '{self}' has no {wanted}")
            return found[0]
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        cause: Exception | None = None
        for name in names:
            try:
                with hub_quietly():
                    return Path(hf_hub_download(self.name, name, revision=self.revision))
            except EntryNotFoundError as error:
                cause = error
            except (OSError, ValueError) as error:
                cause = error
                break
        raise ModelError(
            f"there is no folder '{self.name}', and the hub gave no {wanted} of '{self}' "
            f"({str(cause).strip().splitlines()[0]}); check the name; without a network, "
            "download it once while online and set HF_HUB_OFFLINE=1, or give a local folder"
        )

    def fixed_by(self, file: Path) -> Place:
        """The same at the commit of a file that it gave, so that it stays the same."""
        return self if self.is_folder else Place(self.name, file.parent.name)


def read_json(file: Path) -> dict[str, Any]:
    """An object of JSON; raises `ModelError` for anything else."""
    try:
        table = json.loads(file.read_text("utf-8"))
        if not isinstance(table, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        raise ModelError(f"'{file}' is damaged ({error}); copy it again") from None
    return table
