"""Contrastive losses: unit vectors in, a scalar out."""

from omnialign.losses.info_nce import info_nce

__all__ = ["info_nce"]
