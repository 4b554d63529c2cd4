"""`make bench-words`: words, times and silence of the real model beside openai-whisper and faster-whisper.

`python -m whisper_bench.words` prepares packages and weights in the project's venv, and measures in one of its own
(bench/words-requirements.txt). What a system heard is kept in .build/bench/words, so that only what changed is
transcribed again.
"""
