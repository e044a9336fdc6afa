"""Languages by the names of fields."""

from littune.apps.card.languages import languages_of
from littune.apps.card.records import Source


def test_fields_that_name_a_language() -> None:
    data = [
        Source(name="a", kind="images", texts=("translations.de", "captions_FR", "caption")),
        Source(name="b", kind="images", texts=("captions.cs", "translations.de", "keywords_x")),
    ]
    assert languages_of(data) == ["cs", "de", "fr"]
    assert languages_of([Source(name="c", kind="prototypes")]) == []
