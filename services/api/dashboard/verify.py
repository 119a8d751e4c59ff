"""The page that finds out why a delivery does not verify. What is typed into it stays in the browser."""

import json
from typing import Final

from flask import Response, make_response, render_template

from services.api.dashboard.blueprint import blueprint, events

# The policy of every page, without any connection, even to this server.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'none'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)


@blueprint.get("/verify")
def verify_delivery() -> Response:
    orders = {each["name"]: list(each["example"]["data"]) for each in events()}
    page = make_response(render_template("verify.html", orders=json.dumps(orders)))
    page.headers["Content-Security-Policy"] = _POLICY
    return page
