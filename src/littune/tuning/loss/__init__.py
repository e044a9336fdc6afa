"""Contrastive losses: plain, streamed in tiles, and as a step's objective."""
