"""What no page may ever do: run a script that is not ours, ask another host, offend the policy, log an error."""

from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Request, Response, WebError

FLAG = "scriptRan"  #: what planted scripts set on `window`, beside opening a dialog
_COUNT_SHIFTS = """
window.layoutShift = 0;
window.shifted = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries().filter((each) => !each.hadRecentInput)) {
    window.layoutShift += entry.value;
    window.shifted.push(...entry.sources.map(({ node }) => node?.outerHTML?.slice(0, 120) ?? node?.textContent));
  }
}).observe({ type: "layout-shift", buffered: true });
"""


class Watch:
    """Everything that went wrong on any page of these browsers, in words."""

    def __init__(self, site: str) -> None:
        self.faults: list[str] = []
        self._host = urlsplit(site).netloc

    def over(self, context: BrowserContext) -> None:
        context.add_init_script(_COUNT_SHIFTS)
        context.on("console", self._console)
        context.on("weberror", self._error)
        context.on("dialog", self._dialog)
        context.on("request", self._request)
        context.on("response", self._response)

    def take(self, part: str) -> list[str]:
        """Those with this in their text, which are then no faults any more."""
        taken = [fault for fault in self.faults if part in fault]
        self.faults = [fault for fault in self.faults if part not in fault]
        return taken

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:  # also what offends the Content-Security-Policy
            self.faults.append(f"console {message.type}: {message.text}")

    def _error(self, error: WebError) -> None:
        self.faults.append(f"uncaught: {error.error}")

    def _dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in {"data", "blob"} and parts.netloc != self._host:
            self.faults.append(f"asked another host: {request.url}")

    def _response(self, response: Response) -> None:
        if response.status >= 500:
            self.faults.append(f"answered {response.status}: {response.url}")
