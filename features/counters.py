"""What extraction and the cache count, for Prometheus; `ml_backend/metrics.py` shows it.

Made without a registry: who shows them registers them. Where several processes count into the same files
(PROMETHEUS_MULTIPROC_DIR), prometheus_client adds them up by itself.
"""

from prometheus_client import Counter

FRAMES = Counter("backend_extracted_frames", "Video frames whose features were extracted", registry=None)
EXTRACTION_SECONDS = Counter("backend_extraction_seconds", "Time that extracting took", registry=None)
LOOKUPS = Counter("backend_cache_lookups", "Features that were asked for", ["result"], registry=None)
EVICTIONS = Counter("backend_cache_evictions", "Features dropped to stay within CACHE_SIZE_LIMIT", registry=None)

COUNTERS = (FRAMES, EXTRACTION_SECONDS, LOOKUPS, EVICTIONS)
