"""One kind of fault, many times, under load: a repetition that breaks is counted."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from drills.faults import Sample, quantile
from drills.load import Account, prepare, warm
from drills.world import World

RECOVER_S = 90.0
PREPARE_S = 120.0


@dataclass(slots=True)
class Outcome:
    """What came of one event."""

    name: str
    wanted: int
    deadline_s: float
    samples: list[Sample] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Why a repetition did not come to its end; each counts as long as its deadline."""
    account: Account = field(default_factory=Account)

    def quantile(self, part: float, of: Callable[[Sample], float]) -> float | None:
        """Milliseconds; None if there was no repetition at all."""
        values = [of(sample) for sample in self.samples]
        values += [self.deadline_s * 1000] * len(self.broken)
        return quantile(values, part) if values else None


async def repeat(
    outcome: Outcome,
    world: World,
    once: Callable[[World], Awaitable[Sample]],
    say: Callable[[str], None],
) -> None:
    """Adds to the outcome; ends early if the cluster does not recover."""
    async with asyncio.timeout(PREPARE_S):
        await world.led()
        await prepare(world)
    async with warm(world, outcome.account):
        for number in range(1, outcome.wanted + 1):
            try:
                async with asyncio.timeout(outcome.deadline_s):
                    sample = await once(world)
            except Exception as exc:
                why = str(exc) or f"it took more than {outcome.deadline_s:.0f} s"
                outcome.broken.append(why)
                say(f"{outcome.name} {number}/{outcome.wanted}: broken: {why}")
                try:
                    async with asyncio.timeout(RECOVER_S):
                        await world.recover()
                except Exception as again:
                    say(f"{outcome.name}: ends here: {again!r}; see {world.logs}")
                    outcome.broken += ["not tried"] * (outcome.wanted - number)
                    return
            else:
                outcome.samples.append(sample)
                etcd = "" if sample.etcd_ms is None else f", etcd {sample.etcd_ms:.0f} ms"
                say(
                    f"{outcome.name} {number}/{outcome.wanted}: share {sample.share_ms:.1f} ms, "
                    f"answer {sample.answer_ms:.1f} ms{etcd}, pause {sample.pause_ms:.0f} ms"
                )
