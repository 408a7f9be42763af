"""A Manager with the bench's driver, which says what it does: `python -m drills.manager SETTINGS`.

SETTINGS is JSON: `ManagerConfig`'s, and "engine", the engine's socket. Each line of its output is
JSON: {"role": "standby" | "leads" | "", "at": ns} when that changes, and {"pause": [ended ns, ms]}
for a time in which its event loop did not turn. Moments are those of `time.monotonic_ns`.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

from drills.driver import LastingDriver
from slotway import log
from slotway.config import LogConfig, ManagerConfig
from slotway.etcd import Client
from slotway.manager.codestore import CodeStore
from slotway.manager.server import Manager
from slotway.signals import until_signalled

LOOK_S = 0.005
PAUSE_S_MIN = 0.02


def role(manager: Manager) -> str:
    """What it does at present; a standby counts once it has the ledger and hears the leader."""
    if manager._loop is not None:
        return "leads" if manager._loop.ready else ""
    standby = manager._standby
    ready = standby is not None and standby.replica.revision and standby.succession._turn
    return "standby" if ready else ""


async def tell(manager: Manager) -> None:
    """Says what changes, for ever."""
    said, looked = "", time.monotonic_ns()
    while True:
        await asyncio.sleep(LOOK_S)
        now = time.monotonic_ns()
        pause_s, looked = (now - looked) / 1e9 - LOOK_S, now
        if pause_s >= PAUSE_S_MIN:
            print(json.dumps({"pause": [now, pause_s * 1000]}), flush=True)
        if (is_now := role(manager)) != said:
            said = is_now
            print(json.dumps({"role": said, "at": now}), flush=True)


async def main(settings: dict[str, object]) -> None:
    """Runs until a signal."""
    engine = Path(str(settings.pop("engine")))
    config = ManagerConfig.model_validate(settings)
    log.configure(LogConfig(format="json"), manager=config.id)
    assert config.run_dir is not None
    driver = LastingDriver(config.cluster, config.run_dir, engine)
    async with Client(config.etcd.access()) as client:
        code = CodeStore(str(config.data_dir / "code"))
        manager = Manager(config, driver, code, client)
        telling = asyncio.create_task(tell(manager))
        try:
            await manager.run()
        finally:
            telling.cancel()


if __name__ == "__main__":
    asyncio.run(until_signalled(main(json.loads(sys.argv[1]))))
