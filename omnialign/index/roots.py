"""The folders that the files of a library are looked for in, and what is gone from there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

MAGIC = frozenset("*?[")
"""What makes a name a pattern."""


def files_below(folder: str, unreadable: Callable[[OSError], None] | None = None) -> Iterator[str]:
    """The files of a folder and its folders, but for hidden ones, in order.

    `unreadable` is told of folders that cannot be listed.
    """
    for root, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.isfile(path := os.path.join(root, name)):
                yield path


class Roots:
    """Folders that are looked through, and those that seem to be there no more.

    A disk that is not mounted leaves an empty folder, or none: no file is gone from there.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        folders = {_folder(os.path.abspath(given)) for given in paths}
        self._folders = sorted(folders, key=len, reverse=True)
        self._hold_files: dict[str, bool] = {}
        self.empty: dict[str, int] = {}
        """Folders without a file, and how many that are not there were asked for."""

    def is_gone(self, path: str) -> bool:
        """Whether a file does not exist, though the folder that it was looked for in has files."""
        if not _is_missing(path):
            return False
        folder = self._root(path)
        if folder not in self._hold_files:
            self._hold_files[folder] = next(files_below(folder), None) is not None
        if not self._hold_files[folder]:
            self.empty[folder] = self.empty.get(folder, 0) + 1
        return self._hold_files[folder]

    def _root(self, path: str) -> str:
        for folder in self._folders:
            if path.startswith(folder.rstrip(os.sep) + os.sep):
                return folder
        folder = os.path.dirname(path)
        while not os.path.isdir(folder) and folder != os.path.dirname(folder):
            folder = os.path.dirname(folder)
        return folder


def _folder(whole: str) -> str:
    """The deepest folder that all files of a path lie below."""
    if os.path.isfile(whole):
        return os.path.dirname(whole)
    if os.path.isdir(whole):
        return whole
    while MAGIC & set(whole):
        whole = os.path.dirname(whole)
    return whole


def _is_missing(path: str) -> bool:
    """Not where nobody can look."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False
