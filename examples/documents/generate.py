"""Writes the data set: `documents.jsonl` and, line by line, the right answers in `answers.jsonl`.

The answers come from the same random choices as the documents, not from the action: it has to find
them again.
"""

from __future__ import annotations

import csv
import io
import json
import random
from datetime import date, timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SEED = 2018
OF_EACH_KIND = 28
CUSTOMERS = [
    "Aalto Oy",
    "Bäckerei Blum",
    "Cole & Daughters",
    "Dufour, Frères",
    "Eriksen AS",
    'Ferro "Il Vecchio"',
]
ARTICLES = {
    "bolt M8": 35,
    "hinge": 420,
    "door handle": 1899,
    "oak board": 3250,
    "wood glue": 649,
    "saw blade": 1275,
}
PEOPLE = ["amira", "bence", "carla", "dmitri", "elif", "farid"]
TOPICS = ["Budget", "Hiring", "Website", "Warehouse", "Suppliers", "Safety", "Training"]
TASKS = [
    "order new shelves",
    "call the supplier",
    "update the price list",
    "book the hall",
    "check the invoices",
]
WORDS = ["we", "agreed", "this", "can", "wait", "until", "next", "week", "nobody", "has", "figures"]


def main() -> None:
    """Writes both files anew."""
    made = documents()
    for name, column in ("documents.jsonl", 0), ("answers.jsonl", 1):
        lines = (json.dumps(pair[column], ensure_ascii=False) + "\n" for pair in made)
        (HERE / name).write_text("".join(lines), "utf-8")


def documents() -> list[tuple[dict[str, str], dict[str, Any]]]:
    """All documents, each with its right answer."""
    dice = random.Random(SEED)
    made = []
    for number in range(1, OF_EACH_KIND + 1):
        for form, (text, answer) in (
            ("csv", orders(dice)),
            ("json", invoice(dice, number)),
            ("md", notes(dice)),
        ):
            name = f"{answer['kind']}-{number:02}.{form}"
            made.append(({"name": name, "format": form, "text": text}, answer))
    return made


def orders(dice: random.Random) -> tuple[str, dict[str, Any]]:
    """Orders of one month, some lines of them spoilt."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["date", "customer", "article", "quantity", "price"])
    totals: dict[str, int] = {}
    days, problems = [], []
    start = date(2018, dice.randint(1, 12), 1)
    for line in range(2, dice.randint(12, 40)):
        day = start + timedelta(dice.randrange(28))
        customer, article = dice.choice(CUSTOMERS), dice.choice(list(ARTICLES))
        quantity = dice.randint(1, 12)
        row = [day.isoformat(), customer, article, str(quantity), money(ARTICLES[article])]
        fault = dice.random()
        if fault < 0.04:
            row[3] = "-1"
            problems.append(f"line {line}: quantity -1")
        elif fault < 0.08:
            row[4] = "free"
            problems.append(f"line {line}: amount 'free'")
        elif fault < 0.10:
            row[0] = "yesterday"
            problems.append(f"line {line}: Invalid isoformat string: 'yesterday'")
        else:
            days.append(row[0])
            totals[customer] = totals.get(customer, 0) + quantity * ARTICLES[article]
        table.writerow(row)
    best = sorted(totals, key=lambda name: (-totals[name], name))
    return file.getvalue(), {
        "kind": "orders",
        "orders": len(days),
        "total": sum(totals.values()),
        "customers": len(totals),
        "best_customer": best[0],
        "first": min(days),
        "last": max(days),
        "problems": problems,
    }


def invoice(dice: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    """An invoice; every fourth or so with a wrong sum or a date that cannot be."""
    lines, net = [], 0
    for article in dice.sample(list(ARTICLES), dice.randint(1, 5)):
        quantity = dice.randint(1, 20)
        net += quantity * ARTICLES[article]
        lines.append(
            {"article": article, "quantity": quantity, "unit_price": money(ARTICLES[article])}
        )
    percent = dice.choice([7, 19, 21, 25])
    tax = int(net * percent / 100 + 0.5)
    issued = date(2018, 1, 1) + timedelta(dice.randrange(365))
    due, gross, problems = issued + timedelta(30), money(net + tax), []
    fault = dice.random()
    if fault < 0.15:
        gross = money(net + tax + 1000)
        problems.append(f"gross is {gross}, should be {money(net + tax)}")
    elif fault < 0.25:
        due = issued - timedelta(1)
        problems.append("due before it was issued")
    document = {
        "number": f"2018-{number:04}",
        "customer": dice.choice(CUSTOMERS),
        "issued": issued.isoformat(),
        "due": due.isoformat(),
        "lines": lines,
        "tax_percent": percent,
        "net": money(net),
        "tax": money(tax),
        "gross": gross,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n", {
        "kind": "invoice",
        "number": document["number"],
        "lines": len(lines),
        "gross": net + tax,
        "problems": problems,
    }


def notes(dice: random.Random) -> tuple[str, dict[str, Any]]:
    """Notes of a meeting; now and then without a title, or with a task that nobody has."""
    text, words = "", 0
    title = f"{dice.choice(TOPICS)} round" if dice.random() > 0.1 else None
    problems = [] if title else ["no title"]
    if title:
        text, words = f"# {title}\n\n", 2
    done, owners = 0, dict.fromkeys(PEOPLE, 0)
    topics = dice.sample(TOPICS, dice.randint(2, 5))
    for topic in topics:
        said = [dice.choice(WORDS) for _ in range(dice.randint(8, 40))]
        text += f"## {topic}\n\n{' '.join(said)}.\n\n"
        words += 1 + len(said)
        for _ in range(dice.randint(0, 3)):
            task, owner, luck = dice.choice(TASKS), dice.choice(PEOPLE), dice.random()
            words += len(task.split())
            if luck < 0.1:
                text += f"- [ ] {task}\n"
                problems.append(f"nobody has: {task}")
                continue
            text += f"- [{'x' if luck < 0.4 else ' '}] {task} @{owner}\n"
            words += 1
            if luck < 0.4:
                done += 1
                words += 1  # The x.
            else:
                owners[owner] += 1
        text += "\n"
    return text, {
        "kind": "notes",
        "title": title,
        "sections": len(topics),
        "words": words,
        "done": done,
        "open": {owner: count for owner, count in owners.items() if count},
        "problems": problems,
    }


def money(value: int) -> str:
    """Cents as an amount."""
    return f"{value // 100}.{value % 100:02}"


if __name__ == "__main__":
    main()
