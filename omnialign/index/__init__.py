"""A library: a collection that lasts, and is searched by meaning."""
