"""Text towers: texts → vectors."""
