"""Admission takes exact names, lets one browser in for each link, and nobody without the cookie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.ui.core.admission import MAX_COOKIES, MAX_LINKS, Admission

PORT = 8497
HOSTS = [b"127.0.0.1:8497", b"localhost:8497"]
secrets = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=20)


def admission() -> Admission:
    return Admission(PORT)


def cookie(value: str, name: str = f"backtestr-{PORT}") -> list[tuple[bytes, bytes]]:
    return [(b"cookie", f"{name}={value}".encode())]


@given(st.one_of(st.sampled_from(HOSTS), st.binary(max_size=30)))
def test_only_the_two_names_of_the_server_are_for_it(host: bytes) -> None:
    assert admission().is_for_us([(b"host", host)]) == (host in HOSTS)


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"127.0.0.1",
        b"127.0.0.1:8498",
        b"127.0.0.1:8497.evil.example",
        b"localhost.:8497",
        b"LOCALHOST:8497",
        b"[::1]:8497",
        b"0.0.0.0:8497",
        b"",
    ],
)
def test_other_names_are_not(host: bytes) -> None:
    assert not admission().is_for_us([(b"host", host)])


def test_one_host_must_be_named_and_one_only() -> None:
    assert not admission().is_for_us([])
    assert not admission().is_for_us([(b"host", HOSTS[0]), (b"host", HOSTS[0])])


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    ("origin", "is_own"),
    [
        (b"http://%s", True),
        (b"https://%s", False),
        (b"http://%s/", False),
        (b"http://%s.evil.example", False),
        (b"http://127.0.0.1:1234", False),
        (b"null", False),
        (b"", False),
    ],
)
def test_the_origin_is_that_of_the_page_at_the_same_host(host: bytes, origin: bytes, is_own: bool) -> None:
    named = origin % host if b"%s" in origin else origin
    for must_say in (True, False):
        assert admission().is_from_us([(b"host", host), (b"origin", named)], must_say=must_say) == is_own


def test_the_two_names_are_two_origins() -> None:
    assert not admission().is_from_us([(b"host", HOSTS[0]), (b"origin", b"http://" + HOSTS[1])], must_say=True)


def test_what_changes_anything_must_say_where_it_comes_from() -> None:
    assert admission().is_from_us([(b"host", HOSTS[0])], must_say=False)
    assert not admission().is_from_us([(b"host", HOSTS[0])], must_say=True)
    twice = [(b"host", HOSTS[0]), (b"origin", b"http://" + HOSTS[0]), (b"origin", b"http://" + HOSTS[0])]
    assert not admission().is_from_us(twice, must_say=True)


def test_at_the_port_of_http_browsers_leave_the_port_out() -> None:
    assert Admission(80).is_for_us([(b"host", b"localhost")])
    assert Admission(80).is_for_us([(b"host", b"localhost:80")])
    assert not Admission(81).is_for_us([(b"host", b"localhost")])


@given(st.lists(secrets, unique=True, min_size=2, max_size=6))
def test_a_link_lets_one_browser_in_once(tokens: list[str]) -> None:
    wrong, *issued = tokens
    one = admission()
    for token in issued:
        one.add_link(token)
    assert not one.open_link(wrong, "cookie-of-nobody")
    for number, token in enumerate(issued):
        assert one.open_link(token, f"cookie{number}")
        assert not one.open_link(token, "cookie-of-a-second")
    for number in range(len(issued)):
        assert one.is_let_in(cookie(f"cookie{number}"))
    for other in ("cookie-of-nobody", "cookie-of-a-second", "", *tokens):
        assert not one.is_let_in(cookie(other))


def test_the_cookie_is_found_among_others() -> None:
    one = admission()
    one.add_link("token")
    assert one.open_link("token", "mine")
    assert one.is_let_in([(b"cookie", b"a=b; backtestr-8497=mine;c=d")])
    assert one.is_let_in([(b"cookie", b"a=b"), *cookie("mine")])
    assert not one.is_let_in(cookie("mine", "backtestr-8498"))
    assert not one.is_let_in([(b"cookie", b"xbacktestr-8497=mine")])
    assert not one.is_let_in([(b"cookie", b"\xff\xfe=\xff; backtestr-8497=\xff")])
    assert not one.is_let_in([])


def test_the_oldest_links_and_browsers_are_forgotten() -> None:
    one = admission()
    for number in range(MAX_LINKS + 1):
        one.add_link(f"link{number}")
    assert not one.open_link("link0", "c")
    assert one.open_link("link1", "c")
    for number in range(MAX_COOKIES):
        one.add_link(f"t{number}")
        assert one.open_link(f"t{number}", f"c{number}")
    assert not one.is_let_in(cookie("c"))
    assert one.is_let_in(cookie("c0"))
