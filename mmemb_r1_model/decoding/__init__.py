"""Rows continued token by token, many at once: prompts in pieces, rows that enter and leave slots, a clock by stage.

Knows torch and transformers, and a text model with its language head; no prompt format, no harness. Both embedders that
write rationales, MMEmb-R1's and UME-R1's, run on it.
"""

from mmemb_r1_model.decoding.clock import StageClock
from mmemb_r1_model.decoding.costs import Costs, Passes
from mmemb_r1_model.decoding.pieces import LONGEST_PIECE, Pieces, Prompts, at_once, read_in_pieces, states_of
from mmemb_r1_model.decoding.quick import as_the_library_has_it, quicken
from mmemb_r1_model.decoding.step import Graphs, likeliest, suppressed
from mmemb_r1_model.decoding.stream import Answer, Answered, Decoder, Opened, Row, Rule, Usage

__all__ = [
    "LONGEST_PIECE",
    "Answer",
    "Answered",
    "Costs",
    "Decoder",
    "Graphs",
    "Opened",
    "Passes",
    "Pieces",
    "Prompts",
    "Row",
    "Rule",
    "StageClock",
    "Usage",
    "as_the_library_has_it",
    "at_once",
    "likeliest",
    "quicken",
    "read_in_pieces",
    "states_of",
    "suppressed",
]
