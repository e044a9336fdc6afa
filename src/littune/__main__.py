"""``python -m littune``, the same as the command ``littune``."""

from littune.cli import main

main()
