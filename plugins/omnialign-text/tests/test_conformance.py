from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from omnialign_text import Text

from omnialign.testing import ModalityConformance


class TestText(ModalityConformance):
    modality = Text()
    encoder_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "transformer": {"width": 32, "depth": 1, "num_heads": 2},
        "ngrams": {"width": 32, "num_buckets": 512},
    }
