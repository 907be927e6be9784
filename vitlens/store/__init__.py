"""Embeddings on disk: items by content, the cache, the resumable job, files to write and open."""
