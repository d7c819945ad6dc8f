"""A collection that lasts: files, their embeddings, and what finds them again."""
