"""Where deliveries may go, and the egress proxy."""

from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from go2hooks.core.security.addresses import AddressPolicy, Network
from go2hooks.core.security.egress import ProxyAddress, parse_proxy_url
from go2hooks.core.security.target import BAD_PORTS
from go2hooks.settings.environment import CommaSeparated, Environment, split_list


def parse_network(text: str) -> Network:
    """`10.1.0.0/16`, `fd00::/8`; a single address is a network of one. Raises ValueError that says what is wrong."""
    text = text.strip()
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no network: write it such as 10.1.0.0/16 or fd00::/8") from None
    if ip_interface(text).ip != network.network_address:
        raise ValueError(f"{text!r} has bits set beyond its prefix: write {network} if that is meant")
    return network


def _networks(value: Any) -> Any:
    parts = split_list(value)
    return tuple(parse_network(part) for part in parts) if isinstance(value, str) else parts


def _port_numbers(value: tuple[int, ...]) -> tuple[int, ...]:
    wrong = [port for port in value if not 0 <= port <= 65535]  # noqa: PLR2004  # the highest port
    if wrong:
        raise ValueError(f"{wrong[0]} is no port: ports go from 0 to 65535")
    return value


def _proxy(value: SecretStr | None) -> SecretStr | None:
    if value is None or not value.get_secret_value():
        return None
    parse_proxy_url(value.get_secret_value())
    return value


_Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)]


class TargetSettings(Environment):
    """Permitted and forbidden targets of deliveries."""

    allow_insecure_targets: bool = Field(
        default=False, description="permit http and private addresses, for development"
    )
    target_allow_cidrs: _Networks = Field(
        (), description="networks that deliveries may go to though they are not public, comma separated"
    )
    target_deny_cidrs: _Networks = Field(
        (), description="networks that no delivery may go to, comma separated; wins over every permission"
    )
    target_deny_ports: Annotated[CommaSeparated[int], AfterValidator(_port_numbers)] = Field(
        tuple(sorted(BAD_PORTS)),
        description="ports that no delivery may go to, comma separated; by default those that are never HTTP",
    )
    target_ca_file: Path | None = Field(
        None, description="PEM file of further CAs to trust for receivers, and for an egress proxy that speaks TLS"
    )
    egress_proxy: Annotated[SecretStr | None, AfterValidator(_proxy)] = Field(
        None,
        description="HTTP proxy that deliveries leave by, such as http://user:password@host:3128; https:// for TLS to it",
    )

    def address_policy(self) -> AddressPolicy:
        """The addresses that deliveries may go to."""
        return AddressPolicy(self.target_allow_cidrs, self.target_deny_cidrs, self.allow_insecure_targets)

    def egress_proxy_address(self) -> ProxyAddress | None:
        """The egress proxy; None when deliveries go directly."""
        return None if self.egress_proxy is None else parse_proxy_url(self.egress_proxy.get_secret_value())
