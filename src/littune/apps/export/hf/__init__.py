"""littune's towers as models of transformers, for the targets that hold such models."""
