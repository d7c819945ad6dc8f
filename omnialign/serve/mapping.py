"""The map of the library, computed in a process of its own while everything else goes on."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys

from omnialign.errors import OmniAlignError
from omnialign.index import Index
from omnialign.index.projection import Projection, project, projection_file

STEPS = 65535
"""Places on the map are whole numbers up to here."""


class MapMaker:
    """The projection of a library as it is now."""

    def __init__(self, index: Index, max_files: int) -> None:
        self._index, self._max_files = index, max_files
        self._making: asyncio.subprocess.Process | None = None
        self._made: tuple[str, bytes] | None = None
        self._lock = asyncio.Lock()

    async def map(self) -> bytes | None:
        """Gzipped JSON; None while it is being computed.

        Raises `OmniAlignError` where that has failed.
        """
        async with self._lock:
            file = await asyncio.to_thread(projection_file, self._index, self._max_files)
            if self._made is not None and self._made[0] == str(file):
                return self._made[1]
            if self._making is not None and self._making.returncode is not None:
                failed, self._making = self._making.returncode != 0, None
                if failed:
                    raise OmniAlignError("the map could not be made; the log says why")
            if not file.is_file():
                self._making = self._making or await self._start()
                return None
            found = await asyncio.to_thread(Projection.load, file)
            self._made = (str(file), await asyncio.to_thread(_packed, found))
            return self._made[1]

    async def _start(self) -> asyncio.subprocess.Process:
        arguments = ["-P", "-m", __name__, self._index.uri, str(self._max_files)]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    async def close(self) -> None:
        if self._making is not None and self._making.returncode is None:
            self._making.kill()
            await self._making.wait()


def _packed(found: Projection) -> bytes:
    """Ids, the number of each one's modality, and x and y in turns."""
    names = sorted(set(found.modalities))
    about = {
        "steps": STEPS,
        "modalities": names,
        "ids": found.ids,
        "modality": [names.index(name) for name in found.modalities],
        "places": (found.places * STEPS).round().astype(int).ravel().tolist(),
    }
    return gzip.compress(json.dumps(about, separators=(",", ":")).encode(), 5)


if __name__ == "__main__":
    os.nice(10)
    project(Index.open(sys.argv[1]), int(sys.argv[2]))
