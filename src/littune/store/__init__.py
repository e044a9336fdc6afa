"""Embeddings on disk: the store, and the two ways to fill one."""
