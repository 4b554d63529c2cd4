"""From uploaded bytes to 16 kHz mono float32 samples."""
