"""Prometheus counters of extraction and cache, which `ml_backend/dashboard/metrics.py` registers and shows.

Where several processes count into the same files (PROMETHEUS_MULTIPROC_DIR), prometheus_client adds them up.
"""

from prometheus_client import Counter

FRAMES = Counter("backend_extracted_frames", "Video frames whose features were extracted", registry=None)
EXTRACTION_SECONDS = Counter("backend_extraction_seconds", "Time that extractions took", registry=None)
LOOKUPS = Counter("backend_cache_lookups", "Look-ups of features", ["result"], registry=None)
EVICTIONS = Counter("backend_cache_evictions", "Features dropped to stay within CACHE_SIZE_LIMIT", registry=None)

COUNTERS = (FRAMES, EXTRACTION_SECONDS, LOOKUPS, EVICTIONS)
