"""What may a page do that shows the words of models and corpora?

The pages of a study escape every text they show. A content security policy stands behind that: the one script that a
page was written with runs, known by its digest, and whatever that script loads from beside the page; nothing else
runs, and nothing is fetched from anywhere.
"""

from __future__ import annotations

import base64
import hashlib

RULES = (
    "default-src 'none'",
    "script-src 'sha256-{digest}' 'strict-dynamic'",
    "style-src 'unsafe-inline'",  # figures have styles of their own, and styles run nothing
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
)


def policy(script: str) -> str:
    """The content security policy of a page whose only script element holds `script`.

    Source: https://www.w3.org/TR/CSP3/
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return "; ".join(RULES).format(digest=digest)
