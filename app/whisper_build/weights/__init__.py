"""Any Whisper as the ggml file that a package is made of, byte for byte the same for the same float16 values.

`convert.py` finds out what a path holds, has a reader take it apart (`huggingface.py`, `pytorch.py`, `ctranslate2.py`)
and `ggml.py` write it; `pinned.py` has what comes from OpenAI's own files and is the same for all. Nothing here runs
code of what it reads, and no weight is trusted: a fault is a `SourceError` that says what is wrong, where, and what to
do. Needs numpy and safetensors, which only the control node has.
"""
