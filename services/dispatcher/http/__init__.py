"""Senders: carry signed requests to receivers. `HttpClient` is the fast one, `AiohttpSender` the reference."""

from go2hooks.settings import Settings
from services.dispatcher.http.client import HttpClient
from services.dispatcher.http.guard import Guard, RememberingPolicy
from services.dispatcher.http.proxy import EgressProxy
from services.dispatcher.http.resolver import AresLookup, Resolver
from services.dispatcher.http.response import ExchangeLimits
from services.dispatcher.http.sender import Sender
from services.dispatcher.http.tls import client_context

__all__ = ["EgressProxy", "ExchangeLimits", "Guard", "HttpClient", "Resolver", "Sender", "build_sender"]


def build_sender(settings: Settings) -> Sender:
    """The sender that the settings ask for. Reads CA files; raises OSError or ssl.SSLError when one is unreadable.

    It binds itself to the event loop at its first `send`.
    """
    limits = ExchangeLimits(
        settings.delivery_timeout_s,
        settings.response_body_limit_bytes,
        settings.response_excerpt_bytes,
        settings.response_body_timeout_s,
    )
    lookup = AresLookup()
    resolver = Resolver(lookup, close_lookup=lookup.close)
    guard = Guard(RememberingPolicy(settings.address_policy()), settings.target_deny_ports)
    context = client_context(settings.target_ca_file)
    proxy = _egress_proxy(settings)
    if settings.sender == "aiohttp":
        from services.dispatcher.http.aiohttp_sender import AiohttpSender  # noqa: PLC0415  # a fifth of a start

        return AiohttpSender(
            limits,
            resolver=resolver,
            guard=guard,
            ssl_context=context,
            proxy=proxy,
            pool_idle_s=settings.pool_idle_s,
        )
    return HttpClient(
        limits,
        resolver=resolver,
        guard=guard,
        ssl_context=context,
        proxy=proxy,
        pool_max_idle=settings.pool_max_idle,
        pool_idle_s=settings.pool_idle_s,
    )


def _egress_proxy(settings: Settings) -> EgressProxy | None:
    address = settings.egress_proxy_address()
    if address is None:
        return None
    return EgressProxy(address, client_context(settings.target_ca_file) if address.is_tls else None)
