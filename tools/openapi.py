"""Print the API's OpenAPI document as JSON, without a server: `make lint-api` reads it."""

import base64
import json
import os
import sys
from typing import Any, cast

from go2hooks.settings import load_settings
from services.api.app import create_app
from services.api.openapi import document


def main() -> None:
    key = base64.b64encode(os.urandom(32)).decode()
    absent = cast("Any", None)  # the routes are described, not served
    settings = load_settings(database_url="postgresql://none", secret_keys=key)
    app = create_app(settings, absent, absent, absent, absent)
    json.dump(document(app), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
