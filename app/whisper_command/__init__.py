"""The command `whisper-xeon`: transcribes many files, with a model of its own or through a running service.

Like the service it needs the standard library only.
"""
