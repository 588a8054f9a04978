"""The headers of every response, and the pages that the server writes itself."""

from __future__ import annotations

import html

# By the suffix of a file of the page. Others are not served.
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
}
PRIVATE = "no-store"
# Their names have a digest of their content.
ASSETS = "public, max-age=31536000, immutable"


def security_headers(port: int) -> dict[str, str]:
    """Return the headers that every response of the server at `port` has.

    A page runs its own scripts alone, connects to this server alone, and is shown in no frame. Older browsers do not
    count a WebSocket as `'self'`, so the tunnel is named.
    """
    tunnels = " ".join(f"ws://{name}:{port}" for name in ("127.0.0.1", "localhost"))
    policy = (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        f"connect-src 'self' {tunnels}",
        "worker-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return {
        "content-security-policy": "; ".join(policy),
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }


def plain_page(title: str, *paragraphs: str) -> str:
    """Return a page of text without scripts or styles."""
    body = "".join(f"<p>{html.escape(one)}</p>" for one in paragraphs)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>{html.escape(title)}</title></head><body><main><h1>{html.escape(title)}</h1>{body}</main></body></html>"
    )
