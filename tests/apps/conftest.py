"""The colour world of the evaluation tests, for what people do with a model."""

from tests.evaluation.conftest import cache as cache
from tests.evaluation.conftest import make_store as make_store
from tests.evaluation.conftest import model as model
from tests.evaluation.conftest import pair_folder as pair_folder
