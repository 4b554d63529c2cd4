"""The format of an artifact package (`whisper_<model>_xeon/`), shared by builder, store, roles and service.

Manifest, digests, models, the check of the weights, CPU variants and the comparison behind the self-test. Standard
library only. It knows nothing about them and never loads a library.
"""
