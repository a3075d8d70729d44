"""What this package adds to optuna-dashboard's pages: what read-only means, and that its best values are search values.

The dashboard has no option for either. Its pages are one HTML file, which gets a style, a bar with the reason, and a
script of this package; the policy of `commands.headers` allows only scripts of the dashboard's own address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

SCRIPT_PATH = "/static/ralr_tune.js"
PAGES = "/dashboard"
READ_ONLY = "Read-only: creating, renaming, deleting, editing and uploading need <code>dashboard --write</code>."
BEST = (
    "“Best” is a search value: the best of many trials, biased upwards. Scores on fresh seeds are in each study's note."
)

SCRIPT = b"""// Marks "Best Trial" as what it is: a script draws the page, so every change of it is watched.
// Small chips, in the list of trials, have no room for the mark.
const mark = () => {
  for (const element of document.querySelectorAll("h6, .MuiChip-sizeMedium > .MuiChip-label")) {
    element.toggleAttribute("data-search-value", /^Best Trial/.test(element.textContent));
  }
};
new MutationObserver(mark).observe(document.documentElement, {childList: true, subtree: true, characterData: true});
"""

_STYLE = """
[data-search-value]::after { content: "\u00a0· search value"; }
#ralr_tune { position: fixed; inset: auto 0 0 0; z-index: 1100; margin: 0; padding: 4px 12px 4px 76px;
  font: 13px/1.4 system-ui, sans-serif; color: #4a3b00; background: #fff4cc; border-top: 1px solid #e0c766; }
#ralr_tune code { white-space: nowrap; }
#dashboard { padding-bottom: 48px; }
.MuiBox-root > p { white-space: normal; overflow-wrap: anywhere; } /* a long attribute widened the page of a trial */
@media (prefers-color-scheme: dark) { #ralr_tune { color: #ffe9a8; background: #3a3110; border-color: #6b5a1c; } }
"""
_HIDDEN = """
[aria-label="rename study"], [aria-label="delete study"], [aria-label="delete artifact"],
button:has([data-testid="AddBoxIcon"]), button:has([data-testid="EditIcon"]),
.MuiCard-root:has(> button [data-testid="UploadFileIcon"]) { display: none !important; }
"""


def annotated(application: Application, *, write: bool) -> Application:
    """The dashboard's application with these additions; unless `write`, what cannot work is hidden."""
    style = _STYLE if write else _STYLE + _HIDDEN
    text = BEST if write else f"{READ_ONLY} {BEST}"
    head = f'<style>{style}</style><script defer src="{SCRIPT_PATH}"></script></head>'.encode()
    body = f'<p id="ralr_tune" role="note">{text}</p></body>'.encode()

    def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO") or "/"
        if path == SCRIPT_PATH:
            headers = [("Content-Type", "text/javascript; charset=utf-8")]
            return _send(environ, start_response, "200 OK", headers, SCRIPT)
        if path != PAGES and not path.startswith(f"{PAGES}/"):
            return application(environ, start_response)
        status, headers, page = _whole(application, environ)
        page = page.replace(b"</head>", head).replace(b"</body>", body)
        return _send(environ, start_response, status, headers, page)

    return answer


def _whole(application: Application, environ: Environ) -> tuple[str, list[tuple[str, str]], bytes]:
    """Status, headers and body of a page: never a part of it, nor "not modified"."""
    answered: list[Any] = []
    whole = {key: value for key, value in environ.items() if key not in ("HTTP_IF_MODIFIED_SINCE", "HTTP_RANGE")}
    whole["REQUEST_METHOD"] = "GET" if environ["REQUEST_METHOD"] == "HEAD" else environ["REQUEST_METHOD"]
    body = application(whole, lambda status, headers, *rest: answered.extend([status, headers]))
    try:
        page = b"".join(body)
    finally:
        getattr(body, "close", lambda: None)()
    return answered[0], answered[1], page


def _send(
    environ: Environ, start_response: StartResponse, status: str, headers: list[tuple[str, str]], body: bytes
) -> list[bytes]:
    kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
    start_response(status, [*kept, ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
