"""What scores rest on: the tower alone, prompts, and images seen in training."""
