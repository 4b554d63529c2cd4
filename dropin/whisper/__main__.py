"""`python3 -m whisper`"""

from whisper.command import cli

cli()
