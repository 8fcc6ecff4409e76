"""The batch pipeline: tasks, corpora, storage, projection with Beam, retrieval.

The middle layer. It brings the mathematics of `influence_core` to corpora and
object stores, and knows nothing of command lines.
"""

from pipeline.search.open_index import OpenIndex, open_index

__all__ = ['OpenIndex', 'open_index']
