"""What a run keeps and shows while it is trained."""
