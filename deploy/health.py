"""Asks the program in this container for its status: `health.py healthz` (it lives) or `readyz` (it may get work)."""

import os
import sys
import urllib.error
import urllib.request

port = os.environ.get("EXITSTREAM_TELEMETRY__HTTP_PORT", "9464")
try:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{sys.argv[1]}", timeout=4) as answer:
        sys.stdout.write(answer.read().decode())
except urllib.error.HTTPError as error:
    sys.exit(error.read().decode())
except OSError as error:
    sys.exit(f"no answer on port {port}: {error}")
