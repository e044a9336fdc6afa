"""Image towers: pictures → vectors."""
