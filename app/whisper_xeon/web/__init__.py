"""The HTTP side of the service: bytes in, bytes out. It never loads libwhisper."""
