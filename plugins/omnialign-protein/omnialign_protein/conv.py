"""A dilated residual convolution over residues: small, and quick on a CPU.

Axes: n proteins, T residues with a mark at either end, P pairs of neighbours, W width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from omnialign import Encoder, OmniAlignError, pad_and_stack
from omnialign_protein.residues import NUM_IDS, MeanAndMax, ResidueIds


class Block(nn.Module):
    """Norm, dilated convolution, GELU, and a linear map back, added to the input."""

    def __init__(self, width: int, kernel_size: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, kernel_size, padding="same", dilation=dilation)
        self.back = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` `(n, P, W)`; `mask` `(n, P, 1)`, true where there is data."""
        seen = self.conv((self.norm(x) * mask).mT).mT
        return x + self.dropout(self.back(F.gelu(seen)))


class ConvProtein(Encoder):
    """A convolution that halves the length, then residual blocks whose dilation doubles.

    With the default depth each position sees 91 residues. Convolutions hold their own against
    transformers on proteins (Yang, Fusi and Lu 2024, "Convolutions are competitive with
    transformers for protein sequence pretraining", Cell Systems 15).

    Residues beyond `max_residues` are left to the long-input policy of the modality.
    """

    def __init__(
        self,
        width: int = 128,
        depth: int = 3,
        kernel_size: int = 7,
        max_residues: int = 512,
        dropout: float = 0.0,
    ) -> None:
        if min(width, depth, max_residues) < 1 or kernel_size < 1 or kernel_size % 2 == 0:
            raise OmniAlignError(
                "protein encoder 'conv': width, depth and max_residues are at least 1 and "
                f"kernel_size is odd; got {width}, {depth}, {max_residues} and {kernel_size}"
            )
        super().__init__()
        self.width = width
        self.window = max_residues
        self.preprocess = ResidueIds(max_residues)
        self.collate = pad_and_stack
        self.residues = nn.Embedding(NUM_IDS, width, padding_idx=0)
        self.stem = nn.Conv1d(width, width, kernel_size, stride=2, padding=kernel_size // 2)
        self.blocks = nn.ModuleList(Block(width, kernel_size, 2**i, dropout) for i in range(depth))
        self.pool = MeanAndMax(width)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        x = self.stem(self.residues(batch["values"].long()).mT).mT
        mask = batch["mask"][:, ::2]
        for block in self.blocks:
            x = block(x, mask[..., None])
        return self.pool(x, mask)
