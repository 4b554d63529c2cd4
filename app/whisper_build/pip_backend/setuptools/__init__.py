"""Replaces setuptools while pip downloads a source distribution; nothing else may have this directory on its path."""
