"""Stage 0a: heterogeneous workers write rationales, each of one side of a pair alone.

Leaves rationales.jsonl and asks nobody twice. Imports `data` and `model`; no judge and no training.
"""

from mmemb_r1_model.rationales.config import RationaleConfig, WorkerConfig, check_config
from mmemb_r1_model.rationales.leak import LeakTest, leak_test
from mmemb_r1_model.rationales.rows import RationaleRow, read_rationales
from mmemb_r1_model.rationales.stage import Progress, write_rationales
from mmemb_r1_model.rationales.summary import RationaleSummary, WorkerSummary

__all__ = [
    "LeakTest",
    "Progress",
    "RationaleConfig",
    "RationaleRow",
    "RationaleSummary",
    "WorkerConfig",
    "WorkerSummary",
    "check_config",
    "leak_test",
    "read_rationales",
    "write_rationales",
]
