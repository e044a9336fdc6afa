"""Search a store of images, or a database filled from one, by words, by a picture, or by both."""

from littune.apps.search.hits import Hit as Hit
from littune.apps.search.index import Index as Index
from littune.apps.search.query import Query as Query
