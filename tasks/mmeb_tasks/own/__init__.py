"""People's own data as tasks, without code: a folder in one of the forms that such data come in.

Each form reads its rows through `rows`, makes its items through `items`, and tells everything that is wrong with file
and line. `mmeb-eval new dataset` writes an example of each.
"""

from mmeb_tasks.own.documents import DOCUMENTS
from mmeb_tasks.own.pictures import PICTURES
from mmeb_tasks.own.retrieval import RETRIEVAL

__all__ = ["DOCUMENTS", "PICTURES", "RETRIEVAL"]
