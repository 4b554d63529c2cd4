"""Measures this project beside what else people run; `python -m whisper_bench` is `make bench`.

Each module with a command line is run as `PYTHONPATH=app:bench python -m whisper_bench.NAME`; `--help` says what it
measures. Nothing that the project deploys imports this package.
"""
