"""Addresses of servers, which may hold a name and a password."""

from __future__ import annotations

import re

LOGIN = re.compile(r"(?<=://)[^/?#\s]*@")  # name and password of an address


def without_login(text: str) -> str:
    """An address, or a text with addresses, without the names and the passwords in them."""
    return LOGIN.sub("", text)
