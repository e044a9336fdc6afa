"""Tar shards and the CLIP_benchmark layout."""
