"""What training sees: rows, batches, and what turns their images and texts into outputs."""
