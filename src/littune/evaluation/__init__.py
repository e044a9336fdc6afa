"""What a model can do: zero-shot classification and retrieval, scored."""

from littune.evaluation.evaluate import Evaluation, evaluate
from littune.evaluation.results import Result

__all__ = ["Evaluation", "Result", "evaluate"]
