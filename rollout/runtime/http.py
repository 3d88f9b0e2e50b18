"""HTTP without detours: the environment's proxies are for other machines, never for servers of this one.

Every client of the project comes from here. A proxy cannot reach the loopback address of the machine that asks it.
"""

import ipaddress
import os
import socket
import urllib.request
from collections.abc import Mapping
from http.client import HTTPResponse
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
Client = TypeVar("Client", httpx.Client, httpx.AsyncClient)


def is_on_this_machine(url: str) -> bool:
    """Return whether a URL names this machine: `localhost`, its own name, or one of its addresses in any notation."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # not an address
        return False
    try:
        address = _address(host.partition("%")[0])
    except (OSError, ValueError):  # a name
        return host in (*LOCAL_NAMES, socket.gethostname().lower()) or host.endswith(".localhost")
    if address.is_loopback or address.is_unspecified:
        return True
    with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))  # only an own address can be bound
        except OSError:
            return False
    return True


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address, which for version 4 may be short or one number, as `127.1`. Raises OSError for a name."""
    return ipaddress.ip_address(host if ":" in host else socket.inet_aton(host))


def http_client(url: str, **options: Any) -> httpx.AsyncClient:
    """Return a client for the server at `url`, which asks the environment's proxy only for other machines.

    Args:
        url: The address of the server.
        options: The arguments of `httpx.AsyncClient`.

    Raises:
        ValueError: If a proxy in the environment cannot be used.
    """
    return _client(httpx.AsyncClient, url, options)


def download_client(url: str, **options: Any) -> httpx.Client:
    """Return a client without coroutines; see `http_client`."""
    return _client(httpx.Client, url, options)


def open_url(url: str, timeout: float) -> HTTPResponse:
    """Return the answer of the server at `url`, asked through the environment's proxy only on another machine.

    Raises:
        OSError: If there is no answer, or its status is an error.
        ValueError: If `url` is no address.
    """
    direct = [urllib.request.ProxyHandler({})] if is_on_this_machine(url) else []
    return urllib.request.build_opener(*direct).open(url, timeout=timeout)


def proxy_hint(url: str) -> str:
    """Return how to reach `url` without the proxy it is asked through, in parentheses; empty if there is none."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_on_this_machine(url) or urllib.request.proxy_bypass(host):
        return ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy:
        return ""
    return f" (asked through the proxy {_without_password(proxy)}; add {host} to no_proxy to ask it directly)"


def _client(kind: type[Client], url: str, options: Mapping[str, Any]) -> Client:
    if is_on_this_machine(url):
        return kind(trust_env=False, **options)
    try:
        return kind(**options)
    except (ValueError, ImportError, httpx.InvalidURL) as error:  # for SOCKS, httpx needs another package
        raise ValueError(
            f"{url} cannot be reached through the proxy of the environment, {_proxies()} ({error}); expected one "
            "such as http://HOST:PORT; correct or unset the variable, or list the host in no_proxy"
        ) from None


def _proxies() -> str:
    shown = [
        f"{name}={_without_password(value)}" for name, value in os.environ.items() if name.lower().endswith("_proxy")
    ]
    return ", ".join(sorted(shown))


def _without_password(proxy: str) -> str:
    return f"{proxy.partition('://')[0]}://...@{proxy.rpartition('@')[2]}" if "@" in proxy else proxy
