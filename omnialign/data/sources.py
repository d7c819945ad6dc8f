"""The core's own sources, on the same hooks as everybody's."""

from __future__ import annotations

from collections.abc import Mapping

from omnialign.contract import Source, hookimpl


@hookimpl
def omnialign_sources() -> Mapping[str, type[Source] | str]:
    return {
        "manifest": "omnialign.data.manifest:Manifest",
        "webdataset": "omnialign.data.webdataset:WebDataset",
        "datasets": "omnialign.data.hugging_face:HuggingFace",
        "datasets-stream": "omnialign.data.hugging_face_stream:HuggingFaceStream",
    }
