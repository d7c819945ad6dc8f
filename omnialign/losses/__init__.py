"""Contrastive losses: unit vectors in, a scalar out; exact at any batch size."""

from omnialign.losses.info_nce import info_nce
from omnialign.losses.sigmoid import sigmoid

__all__ = ["info_nce", "sigmoid"]
