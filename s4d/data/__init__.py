"""Files -> batches: reading media, indexing datasets, auditing, augmenting, packing."""
from .audit import audit
from .cache import Packed, packed
from .datasets import REGISTRY, DatasetError, LabelError, fingerprint, index, index_of, split_validation
from .media import MediaError, count_frames, frame_size, read_clip

__all__ = ["REGISTRY", "DatasetError", "LabelError", "MediaError", "Packed", "audit", "count_frames", "fingerprint", "frame_size",
           "index", "packed", "read_clip", "split_validation"]
