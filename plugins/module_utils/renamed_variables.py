"""Variables that have a new name or none, for action `renamed_variables` and scripts/rename_variables.py."""

from __future__ import annotations

_STORE = ("endpoint", "host_endpoint", "region", "bucket", "channel", "access_key", "secret_key")
_READER = ("reader_access_key", "reader_secret_key")
_PUBLISH = ("packages", "models", "releases", "url_seconds", "app_dir")

# Old name -> new name.
RENAMED = {
    "whisper_model": "whisper_service_model",
    "artifact_transport": "whisper_service_transport",
    "artifact_dir": "whisper_service_artifact_dir",
    "whisper_quantization": "artifact_build_quantization",
    "whisper_blas": "artifact_build_blas",
    "whisper_patches": "artifact_build_kernels",
    "artifact_build_patches": "artifact_build_kernels",
    "whisper_store_managed": "minio_managed",
    **{f"whisper_store_{name}": f"artifact_store_{name}" for name in (*_STORE, *_READER)},
    **{f"artifact_publish_{name}": f"artifact_store_{name}" for name in (*_STORE, *_PUBLISH)},
}

# Old name -> what to do instead.
REMOVED = {"whisper_service_model_of": "set whisper_service_model on each host"}
