"""How etcd's endpoints are written."""

from __future__ import annotations

import urllib.parse

ETCD_PORT = 2379


def split_endpoint(endpoint: str) -> tuple[str, str]:
    """Scheme ("" if none is given) and "host:port" of `host[:port]` or `http(s)://host[:port]`.

    Raises ValueError if it is neither.
    """
    try:
        url = urllib.parse.urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        port = url.port or ETCD_PORT
        plain = not (url.username or url.path.strip("/") or url.query or url.fragment)
    except ValueError:
        plain, port = False, 0
    if not plain or url.scheme not in ("", "http", "https") or not url.hostname:
        raise ValueError(f"etcd endpoint {endpoint!r} is not host:port or http(s)://host:port")
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return url.scheme, f"{host}:{port}"
