"""The training loop, on accelerate."""

from omnialign.engine.trainer import train

__all__ = ["train"]
