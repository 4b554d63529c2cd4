"""The format of an artifact package (`whisper_<model>_xeon/`), which builder, store, roles and service share.

Manifest, digests, models, the check of the weights, CPU variants and the comparison behind the self-test. Standard
library only. It knows none of those who use it and never loads a library.
"""
