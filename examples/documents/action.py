"""An action that checks and summarises documents: orders (CSV), invoices (JSON) and notes
(Markdown).

Arguments:
    document: {"format": "csv" | "json" | "md", "text": the document}. Absent: nothing is
    summarised. sleep_ms: how long to wait before answering, as if for a database. barrier_dir,
    barrier_count, barrier_timeout_ms (30,000): wait until so many requests, in whatever containers,
        have arrived with this directory; it must exist. TimeoutError if they do not come.

The answer: {"summary": {...} or null, "witness": {"container": name, "running": n, "max": m}}. The
witness is what shows that nobody sends a container more than it may get: before anything else, each
request counts how many are in this process at that moment, itself included (`running`); `max` is
the highest such count so far.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import secrets
import time
from datetime import date
from typing import Any

CONTAINER = os.environ.get("SLOTWAY_CONTAINER") or f"{os.getpid()}-{secrets.token_hex(4)}"
POLL_S = 0.02
running = 0
highest = 0


async def main(args: dict[str, Any]) -> dict[str, Any]:
    """One request."""
    global running, highest
    running += 1
    here = running
    highest = max(highest, here)
    try:
        if "barrier_dir" in args:
            await wait_for_all(
                args["barrier_dir"], args["barrier_count"], args.get("barrier_timeout_ms", 30_000)
            )
        if args.get("sleep_ms"):
            await asyncio.sleep(args["sleep_ms"] / 1000)
        document = args.get("document")
        summary = summarise(document["format"], document["text"]) if document else None
        witness = {"container": CONTAINER, "running": here, "max": highest}
        return {"summary": summary, "witness": witness}
    finally:
        running -= 1


async def wait_for_all(directory: str, count: int, timeout_ms: int) -> None:
    """Says "here" in a file that all share, and waits until `count` have."""
    arrivals = os.open(os.path.join(directory, "arrivals"), os.O_CREAT | os.O_APPEND | os.O_RDWR)
    try:
        os.write(arrivals, b".")
        give_up = time.monotonic() + timeout_ms / 1000
        while (arrived := os.fstat(arrivals).st_size) < count:
            if time.monotonic() > give_up:
                raise TimeoutError(f"{arrived} of {count} arrived within {timeout_ms} ms")
            await asyncio.sleep(POLL_S)
    finally:
        os.close(arrivals)


def summarise(form: str, text: str) -> dict[str, Any]:
    """What is in a document, and what is wrong with it. Money is in cents."""
    if form == "csv":
        return orders(text)
    if form == "json":
        return invoice(json.loads(text))
    if form == "md":
        return notes(text)
    raise ValueError(f"unknown format {form!r}: csv, json or md")


def orders(text: str) -> dict[str, Any]:
    """A list of orders: date, customer, article, quantity, price. Lines that make no sense are told
    and left out."""
    problems = []
    customers: dict[str, int] = {}
    days = []
    reader = csv.DictReader(io.StringIO(text))
    for number, row in enumerate(reader, start=2):
        try:
            day = date.fromisoformat(row["date"])
            quantity, price = int(row["quantity"]), cents(row["price"])
            if quantity < 1:
                raise ValueError(f"quantity {quantity}")
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        days.append(day)
        customers[row["customer"]] = customers.get(row["customer"], 0) + quantity * price
    best = min(customers, key=lambda name: (-customers[name], name), default=None)
    return {
        "kind": "orders",
        "orders": len(days),
        "total": sum(customers.values()),
        "customers": len(customers),
        "best_customer": best,
        "first": min(days).isoformat() if days else None,
        "last": max(days).isoformat() if days else None,
        "problems": problems,
    }


def invoice(document: dict[str, Any]) -> dict[str, Any]:
    """An invoice, its sums done again."""
    net = sum(line["quantity"] * cents(line["unit_price"]) for line in document["lines"])
    # Rounded half up, as tax offices want it.
    tax = (net * document["tax_percent"] + 50) // 100
    problems = [
        f"{name} is {document[name]}, should be {money(value)}"
        for name, value in (("net", net), ("tax", tax), ("gross", net + tax))
        if cents(document[name]) != value
    ]
    if date.fromisoformat(document["due"]) < date.fromisoformat(document["issued"]):
        problems.append("due before it was issued")
    return {
        "kind": "invoice",
        "number": document["number"],
        "lines": len(document["lines"]),
        "gross": net + tax,
        "problems": problems,
    }


def notes(text: str) -> dict[str, Any]:
    """Notes of a meeting: headings, tasks and who has them, and tasks that nobody has."""
    lines = text.splitlines()
    title = next((line[2:] for line in lines if line.startswith("# ")), None)
    tasks = [match for line in lines if (match := re.match(r"- \[([ x])\] (.*)", line))]
    owners: dict[str, int] = {}
    problems = [] if title else ["no title"]
    for task in tasks:
        if task[1] == "x":
            continue
        owner = re.search(r"@(\w+)", task[2])
        if owner:
            owners[owner[1]] = owners.get(owner[1], 0) + 1
        else:
            problems.append(f"nobody has: {task[2]}")
    return {
        "kind": "notes",
        "title": title,
        "sections": sum(line.startswith("## ") for line in lines),
        "words": len(re.findall(r"[A-Za-z]+", text)),
        "done": sum(task[1] == "x" for task in tasks),
        "open": dict(sorted(owners.items())),
        "problems": problems,
    }


def cents(amount: str) -> int:
    """ "12.50" as 1250."""
    if not re.fullmatch(r"\d+\.\d\d", amount):
        raise ValueError(f"amount {amount!r}")
    return int(amount.replace(".", ""))


def money(value: int) -> str:
    """1250 as "12.50"."""
    return f"{value // 100}.{value % 100:02}"
