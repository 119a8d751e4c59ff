"""One request of a delivery's, from its beginning to the receiver's answer."""

from services.dispatcher.work_item import WorkItem


class Attempt:
    """Of whose delivery it is, since when it is under way, and whether it takes a place in its webhook's lane."""

    __slots__ = ("began_ms", "in_lane", "item")

    def __init__(self, item: WorkItem, began_ms: int, in_lane: bool) -> None:  # noqa: FBT001  # a value
        self.item = item
        self.began_ms = began_ms  # milliseconds of the epoch
        self.in_lane = in_lane
