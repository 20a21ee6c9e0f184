"""A folder of one's own data: the first events of the synthetic log, with its titles."""

import json
from pathlib import Path


def write_own_data(folder: Path, events: int) -> Path:
    """Write interactions and items as JSON lines, without attributes, grades or what was shown together."""
    from event_data.load import load_log  # noqa: PLC0415 - loads only for those tests that need it

    log = load_log(None)
    with (folder / "interactions.jsonl").open("w") as file:
        for event in log.interactions[:events]:
            row = {"user_id": event.user_id, "item_id": event.item_id, "event_time_ms": event.event_time_ms}
            file.write(json.dumps(row | {"clicked": event.positive}) + "\n")
    with (folder / "items.jsonl").open("w") as file:
        for item in log.items:
            file.write(json.dumps({"item_id": item.item_id, "title": item.title}) + "\n")
    return folder
