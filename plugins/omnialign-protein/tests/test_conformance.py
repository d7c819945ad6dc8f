from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from omnialign_protein import Protein

from omnialign.testing import ModalityConformance


class TestProtein(ModalityConformance):
    modality = Protein()
    encoder_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "conv": {"width": 32, "depth": 2},
        "transformer": {"width": 32, "depth": 1, "num_heads": 2},
    }

    def files(self, folder: Path) -> Sequence[Path]:
        paths = [folder / f"ubiquitin{suffix}" for suffix in (".fasta", ".fa", ".faa")]
        for path in paths:
            path.write_text(
                ">ubiquitin\nMQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQ\nRLIFAGKQLEDGR\n"
            )
        return paths
