"""Pairs: sources of rows, what a tower does with an item, and the loader."""
