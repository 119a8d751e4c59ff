"""Every page as a picture, for the documentation: `make screenshots`. Not collected by itself, since it asserts nothing."""

from pathlib import Path

import pytest
from playwright.sync_api import Page

IMAGES = Path(__file__).parents[2] / "docs" / "images" / "dashboard"
MAX_BYTES = 150_000
DESK = {"width": 1080, "height": 760}
PHONE = {"width": 390, "height": 844}
#: By the name of each page: those that the documentation shows in all three forms, and those that it shows once.
IN_ALL = ("webhooks", "webhook", "webhook-disabled", "delivery-failed")
ONCE = ("webhook-new", "deliveries", "webhook-replays", "webhook-log", "verify", "operators", "sign-in")


def take(page: Page, path: str, name: str) -> None:
    page.goto(path)
    page.wait_for_load_state("networkidle")
    page.evaluate("document.activeElement.blur()")
    height = min(page.evaluate("document.documentElement.scrollHeight"), 940)
    size = page.viewport_size
    clip = {"x": 0, "y": 0, "width": size["width"], "height": max(height, 300)}
    file = IMAGES / f"{name}.png"
    page.screenshot(path=file, full_page=True, clip=clip, animations="disabled")
    assert file.stat().st_size <= MAX_BYTES, f"{file}: {file.stat().st_size} bytes"


@pytest.mark.parametrize("form", ["light", "dark", "phone"])
def test_take_pictures(new_page, seeded, watch, form):
    IMAGES.mkdir(exist_ok=True)
    page = new_page(
        seeded.account.key,
        viewport=PHONE if form == "phone" else DESK,
        color_scheme="dark" if form == "dark" else "light",
    )
    pages = seeded.pages() | {"sign-in": "/sign-in"}
    for name in (*IN_ALL, *(ONCE if form == "light" else ())):
        take(page, pages[name], f"{name}-{form}")
    watch.faults.clear()
