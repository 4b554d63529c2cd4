"""HEALTHCHECK of the image: healthy is a service that has loaded its model and answers.

What it prints is shown by `docker inspect --format '{{json .State.Health}}'`. It never changes anything: Docker's start
period, and not this check, decides how long a first download may take.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from pathlib import Path

from whisper_xeon.settings import SettingsError, load_settings

_TIMEOUT_S = 8  # less than the HEALTHCHECK's own, so that the reason is told and not "timed out"
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask, not where to listen


def main() -> int:
    """Print what `/readyz` answers, or why nothing does; 0 when it is ready, else 1."""
    try:
        settings, _ = load_settings(os.environ)
        host = _ANY_ADDRESS.get(settings.host, settings.host)
        if settings.tls_cert:
            # It is the container's own service, asked by its address, and certificates have names.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, settings.port, timeout=_TIMEOUT_S, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, settings.port, timeout=_TIMEOUT_S)
        # By a name that every WHISPER_ALLOWED_HOSTS allows.
        connection.request("GET", "/readyz", headers={"Host": "localhost"})
        answer = connection.getresponse()
        print(answer.read().decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException, SettingsError) as error:
        before = b"entrypoint.sh" in Path("/proc/1/cmdline").read_bytes()
        print("the package is being downloaded or checked" if before else f"the service does not answer: {error}")
        return 1
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
