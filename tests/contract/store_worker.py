"""Works on a store and tells of each thing only after the store acknowledged it, for a test that
kills it: `python -m tests.contract.store_worker URL NAME [BYTES]`.

Prints "submitted FIRST LAST" and "done ID…" lines, and "refused REASON" when the store refuses,
after which it ends; BYTES limits how large the files are that it may write.
"""

from __future__ import annotations

import itertools
import resource
import sys
import time

from slotway.activations import (
    Finish,
    Outcome,
    Status,
    Store,
    StoreUnavailableError,
    Submission,
    Want,
)

BATCH = 16
PAYLOAD = b'{"text": "' + b"x" * 1_000 + b'"}'


def work(store: Store, name: str) -> None:
    """Submits, claims and finishes for ever."""
    for turn in itertools.count():
        now_ms = time.time_ns() // 1_000_000
        ids = [f"{name}-{turn * BATCH + number:08}" for number in range(BATCH)]
        store.submit([Submission(id, f"ns/{name}", PAYLOAD) for id in ids], now_ms)
        print("submitted", ids[0], ids[-1], flush=True)
        claims = store.claim([Want(f"ns/{name}", BATCH // 2, 60_000)], now_ms)
        outcome = Outcome(Status.SUCCESS, b'{"by": "%s"}' % name.encode(), now_ms, 1, name, "c")
        store.finish([Finish(one.id, one.token, outcome) for one in claims], now_ms)
        print("done", *(one.id for one in claims), flush=True)


def main() -> None:
    """See the module."""
    url, name, *limit = sys.argv[1:]
    store = Store(url)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit[0]), resource.RLIM_INFINITY))
    try:
        work(store, name)
    except StoreUnavailableError as error:
        print("refused", error.reason, error, flush=True)


if __name__ == "__main__":
    main()
