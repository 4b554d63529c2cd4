"""The control node's part of a build: fetching sources and models, staging the build context, filling `dist/`.

Used by the action plugins of role `artifact_build`. It never compiles and never talks to Docker or to a store.
"""
