"""Connection parameters by which a server whose machine has vanished is noticed in seconds.

Without them a connection to it hangs until the kernel gives up: two hours where nothing is being sent, a quarter of an hour
where something is.
"""

from typing import Any, Final

#: libpq's; to be given to every connection that lives for longer than a command.
NOTICED: Final[dict[str, Any]] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
}
