"""`/docs`: a page to read and try the API on. Swagger UI, from this host alone."""

from pathlib import Path
from typing import Final

from flask import Blueprint, Response, abort, send_from_directory

_FILES: Final = Path(__file__).with_name("swagger")
_ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "start.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
    "LICENSE": "text/plain",
    "NOTICE": "text/plain",
}
# Swagger UI uses inline styles, and data: URLs for its icons.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

blueprint = Blueprint("docs", __name__)


@blueprint.get("/docs", strict_slashes=True)  # its assets are named beside it
def page() -> Response:
    answer = send_from_directory(_FILES, "index.html", mimetype="text/html")
    answer.headers["Content-Security-Policy"] = _POLICY
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


@blueprint.get("/docs/<name>")
def asset(name: str) -> Response:
    if name not in _ASSETS:
        abort(404)
    return send_from_directory(_FILES, name, mimetype=_ASSETS[name], max_age=3600)
