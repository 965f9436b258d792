"""Web proxies from the environment: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, and NO_PROXY for hosts without one.

Loopback addresses are always reached without a proxy.
"""

import ipaddress
import os
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from data_shards.errors import UserError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PORTS = {"http": 80, "https": 443}


def keep_loopback_direct() -> None:
    """Let this process and those that it starts reach this machine without a proxy: Google's client, and those of Ray's jobs."""
    names = [name for name in ("no_proxy", "NO_PROXY") if os.environ.get(name)]
    for name in names or ["no_proxy", "NO_PROXY"]:
        there = os.environ.get(name, "")
        missing = [host for host in LOOPBACK if host not in there.split(",")]
        if missing and there != "*":
            os.environ[name] = ",".join([*filter(None, [there]), *missing])


def proxy_for(url: str) -> str | None:
    """The proxy for http(s)://host..., None where it is reached without one."""
    parts = urlsplit(url)
    proxies, host = getproxies(), parts.hostname or ""
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or host in LOOPBACK or proxy_bypass(parts.netloc) or _in_networks(host, proxies):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def s3_proxy(url: str) -> dict[str, Any] | None:
    """The proxy for a URL as pyarrow's S3 client wants it; it knows no others than those by HTTP.

    Raises: UserError where what the environment names is no address.
    """
    text = proxy_for(url) or ""
    try:
        proxy = urlsplit(text)
        port = proxy.port
    except ValueError as error:
        # Without its password.
        raise UserError(
            f"the proxy {text.rpartition('@')[2]} of HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is not an address ({error}): write it as "
            "http://HOST:PORT"
        ) from error
    if proxy.scheme not in PORTS or not proxy.hostname:
        return None
    user = {"username": unquote(proxy.username), "password": unquote(proxy.password or "")} if proxy.username else {}
    return {"scheme": proxy.scheme, "host": proxy.hostname, "port": port or PORTS[proxy.scheme], **user}


def _in_networks(host: str, proxies: dict[str, str]) -> bool:
    """Whether an address is in a network that NO_PROXY names as 10.0.0.0/8."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if address.is_loopback:
        return True
    for entry in proxies.get("no", "").split(","):
        try:
            if address in ipaddress.ip_network(entry.strip(), strict=False):
                return True
        except ValueError:
            # A name.
            continue
    return False
