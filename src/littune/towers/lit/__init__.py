"""The checkpoints that the paper's authors published, as flat ``.npz`` files: their names, shapes and vocabularies."""
