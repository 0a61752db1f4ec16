"""Files -> batches: reading media, indexing datasets, auditing, augmenting, packing."""
from ..emotions import LabelError
from .audit import audit, examine
from .cache import Packed, packed
from .corpora import REGISTRY, fingerprint, index, index_of, split_validation
from .media import DatasetError, MediaError, count_frames, read_clip

__all__ = ["REGISTRY", "DatasetError", "LabelError", "MediaError", "Packed", "audit",
           "count_frames", "examine", "fingerprint", "index", "index_of", "packed", "read_clip",
           "split_validation"]
