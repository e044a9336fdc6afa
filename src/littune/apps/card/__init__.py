"""Model cards: the README.md of every run and every export."""

from littune.apps.card.card import CARD as CARD
from littune.apps.card.card import write_export_card as write_export_card
from littune.apps.card.card import write_run_card as write_run_card
from littune.apps.card.records import keep_records as keep_records
