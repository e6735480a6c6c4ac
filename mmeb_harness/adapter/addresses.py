"""Addresses of servers, and names of variables that hold keys: refused before a secret can be written down."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from mmeb_harness.core.errors import OptionError

# Upper case only: a key that was put here by mistake is hardly ever of that form, and must not be shown.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


def check_address(
    base_url: str, api_key_env: str | None, key: str, names: tuple[str, str] = ("base_url", "api_key_env")
) -> None:
    """Refuse an address or a key's name that can't be one. What may contain a secret is not shown.

    Args:
        key: what stands before the setting's name in messages.
        names: of the two settings.

    Raises:
        OptionError: names the setting and what it must be.
    """
    url_name, key_name = names
    if set("@?#") & set(base_url):
        raise OptionError(
            f"{key}{url_name} must be a plain address without user, password or query, as it is written down with the "
            f"results; name the variable that holds a key in {key_name}"
        )
    try:
        url = urlsplit(base_url)
        url.port, (url.hostname or "").encode("idna")  # each raises ValueError
        whole = url.scheme in ("http", "https") and bool(url.hostname)
    except ValueError:
        whole = False
    if not whole:
        raise OptionError(f"{key}{url_name} must be an address such as http://localhost:8000/v1, not {base_url!r}")
    if api_key_env is not None and not _VARIABLE.fullmatch(api_key_env):
        raise OptionError(
            f"{key}{key_name} must be the name of an environment variable, in upper case (its value isn't shown here: "
            "if it is the key itself, export it as a variable and name that)"
        )
