"""The bounds of a router and of replays."""

from pydantic import Field, PositiveInt

from go2hooks.settings.environment import Environment


class RouterSettings(Environment):
    router_window_messages: PositiveInt = Field(
        20000, description="deliveries produced and not yet acknowledged per router"
    )
    router_lookahead_events: PositiveInt = Field(
        100000, description="events that a router reads ahead, to take turns between accounts"
    )
    router_lookahead_mib: PositiveInt = Field(32, description="size of these events at most, in MiB")
    router_gather_ms: int = Field(
        20,
        ge=0,
        description="events of an account that brings a third of all, beside others, wait for each other, in milliseconds",
    )
    replays_per_account: PositiveInt = Field(5, description="replays of an account that may run at once")
    replay_per_s: PositiveInt = Field(
        2000, description="deliveries per second that a replayer sends at most, of all replays together"
    )
