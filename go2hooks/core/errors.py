"""Every error of ours, as one tree.

Go2HooksError
├── SettingsError            a setting is missing, malformed, or contradicts another
├── EventError               an event that cannot become deliveries
│   ├── UndecodableEventError    its bytes are not what any known schema wrote
│   ├── InvalidEventError        it decodes, but breaks a rule of the contract
│   └── UnkeepableEventError     Kafka refuses the deliveries that came of it
├── TargetError              a webhook URL that we refuse
├── FilterError              a webhook's filter that we refuse
├── HeaderError              a webhook's own header that we refuse
├── ClientIdentityError      a client certificate that we refuse
│   ├── CertificateError         for what its chain is
│   └── PrivateKeyError          for what its key is
├── SealError                a secret that no configured key opens
└── UnavailableError         a server that we need is away: try again
"""


class Go2HooksError(Exception):
    """Any error that Go2 Webhooks raises on purpose."""


class SettingsError(Go2HooksError):
    """A setting is missing, malformed, or contradicts another. The message names the variable and the remedy."""


class EventError(Go2HooksError):
    """An event that cannot become deliveries. `reason` is the machine-readable word for the dead-letter header."""

    reason = "invalid"


class UndecodableEventError(EventError):
    """The bytes are not what any known schema wrote."""

    reason = "undecodable"


class InvalidEventError(EventError):
    """The event decodes, but breaks a rule of the contract."""

    reason = "invalid"


class UnkeepableEventError(EventError):
    """Kafka refuses the deliveries that came of the event, for their size above all."""

    reason = "unkeepable"


class TargetError(Go2HooksError):
    """A webhook URL that we refuse. The message is one sentence for the customer."""


class FilterError(Go2HooksError):
    """A webhook's filter that we refuse. The message ends a sentence that begins with `filter`."""


class HeaderError(Go2HooksError):
    """A webhook's own header that we refuse. The message ends a sentence that begins with the header's field."""


class ClientIdentityError(Go2HooksError):
    """A client certificate or its key that we refuse. The message ends a sentence that begins with the field's name."""


class CertificateError(ClientIdentityError):
    """The chain cannot be used."""


class PrivateKeyError(ClientIdentityError):
    """The private key cannot be used. The message holds nothing of it."""


class SealError(Go2HooksError):
    """A sealed secret that no configured key opens."""


class UnavailableError(Go2HooksError):
    """A server that we need is away; the caller may try again."""
