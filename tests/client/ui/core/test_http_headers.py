"""The headers of every response, and the pages that the server writes itself."""

from __future__ import annotations

from backtestr.ui.core.http_headers import plain_page, security_headers


def test_the_policy_lets_a_page_run_and_reach_nothing_of_others() -> None:
    policy = dict(one.split(" ", 1) for one in security_headers(8497)["content-security-policy"].split("; "))
    assert policy.pop("connect-src") == "'self' ws://127.0.0.1:8497 ws://localhost:8497"
    assert policy.pop("img-src") == "'self' data: blob:"
    assert {name for name, sources in policy.items() if sources == "'none'"} == {
        "default-src",
        "base-uri",
        "form-action",
        "frame-ancestors",
    }
    assert {name for name, sources in policy.items() if sources == "'self'"} == {
        "script-src",
        "style-src",
        "font-src",
        "worker-src",
        "manifest-src",
    }


def test_what_else_every_response_says() -> None:
    headers = security_headers(1)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert all(name == name.lower() for name in headers)


def test_a_page_of_the_server_escapes_its_texts() -> None:
    page = plain_page("<b>", "a & b", "<script>")
    assert "<title>&lt;b&gt;</title>" in page
    assert "<p>a &amp; b</p><p>&lt;script&gt;</p>" in page
