"""Evaluation sets: as stores, by the names of the paper, with their class names and languages."""
