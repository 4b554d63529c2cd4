"""Stands in for setuptools while pip downloads a source distribution; nothing else may have this folder on its path."""
