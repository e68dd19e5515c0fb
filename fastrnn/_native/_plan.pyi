"""How a call is shared out among threads."""

def force_plan(
    threads: int | None = None,
    by_units: bool | None = None,
    fused: bool | None = None,
    partitions: int | None = None,
    chunk: int | None = None,
) -> None: ...
