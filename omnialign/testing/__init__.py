"""The public conformance kit: what every modality must hold.

from omnialign.testing import ModalityConformance

class TestRadar(ModalityConformance):
    modality = Radar()
    encoder_options = {"transformer": {"depth": 1}}

    def files(self, folder):
        return [write_radar(folder / "a.radar")]
"""

import pytest

pytest.register_assert_rewrite("omnialign.testing.conformance")

from omnialign.testing.conformance import ModalityConformance  # noqa: E402

__all__ = ["ModalityConformance"]
