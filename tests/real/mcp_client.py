"""A store's tools over standard input and output, asked by a client of the protocol's own package. Prints a
report as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from mcp import Client, StdioServerParameters, stdio_client

import warpmem


def server(store: str, *arguments: str) -> Any:
    """The connection to a server of its own for `store`."""
    command = ["-m", "warpmem.integrations.mcp", "--store", store, "--config", f"{store}.toml", *arguments]
    return stdio_client(StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ)))


async def told(client: Client, name: str, **arguments: Any) -> dict[str, Any]:
    """What a call gives."""
    result = await client.call_tool(name, arguments)
    return {"error": bool(result.is_error), "text": "".join(part.text for part in result.content)}


async def ask(store: str) -> dict[str, Any]:
    """One conversation that writes, one that follows it, one with another user."""
    report: dict[str, Any] = {}
    async with Client(server(store, "--user-id", "nadia", "--source", "desk")) as client:
        listed = await client.list_tools()
        report["tools"] = [tool.name for tool in listed.tools]
        report["writes"] = [not tool.annotations.read_only_hint for tool in listed.tools]
        first = await told(client, "remember", text="Nadia lives in Porto.", key="home_city")
        report["remembered"] = first
        known = json.loads(first["text"])["id"]
        report["moved"] = await told(client, "remember", text="Nadia lives in Lisbon.", key="home_city")
        report["value"] = await told(client, "look_up", key="home_city")
        report["recalled"] = await told(client, "recall", query="where does Nadia live?")
        report["wrong"] = await told(client, "remember", text="")
        report["unknown"] = await told(client, "forget", id="0" * 32)
        together = [
            told(client, "remember", text=f"Nadia has seen film {n}.", kind="event") for n in range(20)
        ]
        report["together"] = sum(not result["error"] for result in await asyncio.gather(*together))
        async with Client(server(store, "--user-id", "nadia", "--read-only")) as reader:
            report["reader"] = [tool.name for tool in (await reader.list_tools()).tools]
            report["read"] = await told(reader, "look_up", key="home_city")
            report["refused"] = await told(reader, "remember", text="no")
    async with Client(server(store, "--user-id", "ann")) as client:
        report["theirs"] = await told(client, "recall", query="where does Nadia live?")
        report["forgotten"] = await told(client, "forget", id=known)
    return report


def main(folder: str) -> None:
    """Ask, then look at what was stored."""
    store = f"{folder}/store"
    with open(f"{store}.toml", "w") as file:
        file.write('embedder = "hashing"\n')
    report = asyncio.run(ask(store))
    with warpmem.open(store, embedder="hashing") as memory:
        items = memory.list(user_id="nadia").items
        report["stored"] = len(items)
        report["sources"] = sorted({source for item in items for source in item.sources})
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
