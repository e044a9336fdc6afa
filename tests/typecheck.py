"""The checker of shapes and types that jaxtyping puts around every function under pytest."""

from beartype import BeartypeConf, beartype

# An int is a float, as mypy has it.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
