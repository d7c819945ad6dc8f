"""A persistent, searchable collection: files, their segments' vectors, and questions to them."""

from omnialign.index.index import Index
from omnialign.index.searching import Hit

__all__ = ["Hit", "Index"]
