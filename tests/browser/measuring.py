"""What the browser itself says of a page: accessibility by axe-core, weight, first paint, layout shift, width."""

from importlib.resources import files
from typing import Any, NamedTuple

from playwright.sync_api import CDPSession, Page

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
_OF_COLOUR = [
    "color-contrast",
    "link-in-text-block",
]  #: rules that may hold in one scheme of colours and not in another
_RUN_AXE = """async (rules) => (await axe.run(document, { resultTypes: ["violations"], ...(rules && { runOnly: rules }) })).violations.map(
  (found) => `${found.id}: ${found.nodes.map((node) => node.target.join(" ") + " " + (node.any[0]?.message ?? "")).slice(0, 3).join("; ")}`)"""
_MEASURE = """() => {
  const loaded = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  return {
    paint_ms: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null,
    transferred: loaded.reduce((sum, entry) => sum + entry.transferSize, 0),
    shift: window.layoutShift,
    shifted: window.shifted,
  };
}"""
# No `wait_for_function`: it polls by eval, which the policy of our pages forbids.
_PAINTED = """() => new Promise((resolve, reject) => {
  setTimeout(() => reject("nothing was painted for 10 s"), 10_000);
  new PerformanceObserver((paints) => paints.getEntriesByName("first-contentful-paint").length && resolve()).observe({ type: "paint", buffered: true });
})"""
_TOO_WIDE = """() => {
  const page = document.documentElement, room = page.clientWidth;
  if (page.scrollWidth <= room) return [];
  const over = [...document.querySelectorAll("body *")].filter((each) => each.getBoundingClientRect().right > room + 0.5);
  return [`${page.scrollWidth - room} px`, ...over.slice(0, 4).map((each) => each.outerHTML.slice(0, 90))];
}"""


class Measured(NamedTuple):
    """`transferred` in bytes, of a browser that had nothing in its cache."""

    paint_ms: float
    transferred: int
    shift: float
    shifted: list[str]  #: what was moved


def without_cache(page: Page) -> CDPSession:
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    return session


def measure(page: Page) -> Measured:
    page.evaluate(_PAINTED)
    return Measured(**page.evaluate(_MEASURE))


def too_wide(page: Page) -> list[str]:
    """By how much it can be scrolled sideways, and what sticks out."""
    found: Any = page.evaluate(_TOO_WIDE)
    return list(found)


def violations(page: Page, *, colours_alone: bool = False) -> list[str]:
    """What axe finds, in words."""
    page.evaluate(f"window.axe || (() => {{ {AXE} }})()")  # by the debugger: the page's policy would not let it in
    found: Any = page.evaluate(_RUN_AXE, _OF_COLOUR if colours_alone else None)
    return list(found)
