"""Which parameters learn, and how."""
