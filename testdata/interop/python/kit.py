"""What the Python clients of the interop suite share: the command line, the records every client produces, the
manifests they leave for one another, and a few checks."""

import base64
import glob
import json
import os
import subprocess
import sys
import time

BOOTSTRAP = os.environ.get("BOOTSTRAP", "127.0.0.1:9092")
NODES = int(os.environ.get("NODES", "1"))  # brokers, and replicas of each partition
SESSION_MS = 6000  # the shortest session timeout that a broker allows by default
DEADLINE = time.monotonic() + int(os.environ.get("SCENARIO_SECONDS", "50"))
_client = ""


def main(client, scenarios, member):
    """Runs the scenario named on the command line; "list" prints their names, "member TOPIC GROUP" is the group
    member that group-rebalance starts as a process of its own, to kill it."""
    global _client
    _client = client
    what = sys.argv[1]
    if what == "list":
        print("\n".join(scenarios))
    elif what == "member":
        member(*sys.argv[2:4])
    else:
        scenarios[what]()


def topic(name):
    """A name that is unique to this client and run; groups are named by it too."""
    return f"{_client}-{name}-{os.environ.get('RUN', '0')}"


def now_ms():
    return int(time.time() * 1000)


def numbered(i):
    return b"%06d" % i


def check(ok, what):
    if not ok:
        raise AssertionError(what)


def remaining(what="the scenario"):
    """Seconds left; fails when none are."""
    left = DEADLINE - time.monotonic()
    check(left > 0, f"deadline: {what}")
    return left


def eventually(what, ok, step=lambda: time.sleep(0.05)):
    """Takes steps until ok."""
    while not ok():
        remaining(f"never happened: {what}")
        step()
    print("reached:", what, flush=True)


def records(first_timestamp, null_headers=True):
    """The shared records as (key, value, headers, timestamp), in order; None is null. Without null_headers a null
    value of a header is an empty one, for what was produced by a client that cannot write it."""
    with open(os.environ["RECORDS"], encoding="utf-8") as f:
        for i, r in enumerate(json.load(f)):
            value = _decode(r["value"])
            if r.get("repeat"):
                value *= r["repeat"]
            headers = [(k, _decode(v if null_headers else v or "")) for k, v in r.get("headers", [])]
            yield _decode(r["key"]), value, headers, first_timestamp + i


def _decode(text):
    return None if text is None else base64.b64decode(text)


def write_manifest(name, codecs, first_timestamp, null_headers=True):
    with open(os.path.join(os.environ["WORK"], f"manifest-{_client}.json"), "w", encoding="utf-8") as f:
        json.dump({"topic": name, "codecs": codecs, "firstTimestamp": first_timestamp, "nullHeaders": null_headers}, f)


def read_all(read):
    """Compares every topic of the run with its manifest; read(topic, n) gives (key, value, headers, timestamp)."""
    files = sorted(glob.glob(os.path.join(os.environ["WORK"], "manifest-*.json")))
    check(files, "no manifests: run produce-codecs first")
    for name in files:
        with open(name, encoding="utf-8") as f:
            m = json.load(f)
        want = list(records(m["firstTimestamp"], m["nullHeaders"])) * len(m["codecs"])
        got = read(m["topic"], len(want))
        check(len(got) == len(want), f"{m['topic']}: {len(got)} records, want {len(want)}")
        for i, (g, w) in enumerate(zip(got, want)):
            check(g == w, f"{m['topic']} offset {i}: {str(g)[:300]}, want {str(w)[:300]}")
        print(m["topic"], len(got), "records are the same", flush=True)


def in_order(values, n):
    for i, v in enumerate(values):
        check(v == numbered(i), f"offset {i} holds {v}, want {numbered(i)} ({len(values)} records read of {n})")
    check(len(values) == n, f"{len(values)} records, want {n}")


def start_restart():
    """Begins to kill the broker and start it again on the same data and port."""
    return subprocess.Popen(["sh", "-c", os.environ["RESTART_CMD"]])


def start_member(name, group):
    return subprocess.Popen([sys.executable, sys.argv[0], "member", name, group])


def kill(member):
    print("kill -9 of the second member", flush=True)
    member.kill()
    member.wait()
